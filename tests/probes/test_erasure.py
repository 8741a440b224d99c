import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from babelscope.errors import BabelScopeError
from babelscope.probes.erasure import Eraser, fit_eraser, fit_mean_projection


def parallel(seed=0, items=40, languages=4, units=12, apart=1.0, of_seed=0):
    """Rows (item x language, unit) and their languages: what items share, what languages add, and noise."""
    fixed = np.random.default_rng([7, of_seed])  # the same languages for every sample
    offset = apart * fixed.normal(size=(languages, units))
    mixing = fixed.normal(size=(units, units)) / np.sqrt(units)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(items, 1, units)) + 0.5 * rng.normal(size=(items, languages, units))
    return (x @ mixing + offset + 3.0).reshape(-1, units), np.tile(np.arange(languages), items)


def covariance_with(labels, X):
    z = (labels[:, None] == np.unique(labels)).astype(float)
    return (X - X.mean(axis=0)).T @ (z - z.mean(axis=0)) / len(X)


def by_the_formula(X, labels, shrinkage):
    """x - W^+ P_{W Sigma_xz} W (x - E x) with every matrix of the paper formed, unit x unit."""
    units = X.shape[1]
    sigma = np.cov(X.T, bias=True)
    sigma = (1 - shrinkage) * sigma + shrinkage * np.trace(sigma) / units * np.eye(units)
    values, vectors = np.linalg.eigh(sigma)
    kept = values > 1e-10 * values.max()
    root = (vectors[:, kept] * np.sqrt(values[kept])) @ vectors[:, kept].T
    whiten = np.linalg.pinv(root, rcond=1e-6)
    whitened = whiten @ covariance_with(labels, X)
    onto = whitened @ np.linalg.pinv(whitened, rcond=1e-8)
    return X - (X - X.mean(axis=0)) @ (np.linalg.pinv(whiten, rcond=1e-6) @ onto @ whiten).T


def change(before, after, inner):
    difference = after - before
    return np.einsum("ri,ij,rj->", difference, inner, difference) / len(before)


@pytest.mark.parametrize("items", [5, 40])  # fewer and more rows than units
@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_erasure_is_the_formula_of_the_paper(items, shrinkage):
    X, labels = parallel(items=items, units=30)
    found = fit_eraser(X, labels, shrinkage=shrinkage)(X)
    assert_allclose(found, by_the_formula(X, labels, shrinkage), atol=1e-9)


def test_the_formula_by_hand_for_two_values_that_differ_in_one_unit():
    # Units with variances 4 + 1 (means -2 and 2) and 1; covariance 1: the concept is in unit 0 alone, and what unit 1
    # knows of unit 0 is no reason to change it.
    X = np.array([[-3.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [3.0, 1.0]])
    labels = np.array(["a", "a", "b", "b"])
    eraser = fit_eraser(X, labels, shrinkage=0.0)
    # Sigma = [[5, 1], [1, 1]] and its inverse [[1, -1], [-1, 5]] / 4: the reader is x0 - x1, the direction (1, 0).
    assert_allclose(eraser.left @ eraser.right, [[1, -1], [0, 0]], atol=1e-12)
    assert_allclose(eraser(X), [[-1, -1], [1, 1], [-1, -1], [1, 1]], atol=1e-12)


@pytest.mark.parametrize("fit", [fit_eraser, fit_mean_projection])
@pytest.mark.parametrize("items", [4, 40])
def test_nothing_of_the_concept_covaries_with_what_is_left(fit, items):
    X, labels = parallel(items=items, units=25)
    scale = np.abs(covariance_with(labels, X)).max()
    assert np.abs(covariance_with(labels, fit(X, labels)(X))).max() < 1e-12 * scale


def test_no_linear_reader_beats_the_majority_on_the_rows_that_it_was_fitted_on():
    X, labels = parallel(items=60)
    rows = np.r_[0 : len(X), np.flatnonzero(labels == 2)]  # language 2 twice: 2/5 of the rows
    X, labels = X[rows], labels[rows]
    reader = LogisticRegression(C=1e3, max_iter=2000)
    assert reader.fit(X, labels).score(X, labels) > 0.9
    erased = fit_eraser(X, labels)(X)
    reader.fit(erased, labels)
    assert reader.score(erased, labels) == pytest.approx(2 / 5)
    assert_allclose(reader.predict_proba(erased), np.tile([0.2, 0.2, 0.4, 0.2], (len(X), 1)), atol=1e-3)


def test_erasing_twice_is_erasing_once():
    X, labels = parallel()
    other, _ = parallel(seed=1)
    eraser = fit_eraser(X, labels)
    assert_allclose(eraser(eraser(other)), eraser(other), atol=1e-11)
    assert_allclose(eraser.right @ eraser.left, np.eye(3), atol=1e-11)


def test_the_mean_of_the_rows_stays():
    X, labels = parallel()
    assert_allclose(fit_eraser(X, labels)(X).mean(axis=0), X.mean(axis=0))


@pytest.mark.parametrize("shrinkage", [0.0, None])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_nothing_changes_where_nothing_covaries(shrinkage, scale):
    X = np.random.default_rng(0).normal(size=(60, 10))
    labels = np.tile([0, 1, 2], 20)
    for label in range(3):
        X[labels == label] -= X[labels == label].mean(axis=0)
    X = scale * (X + 5)
    for eraser in (fit_eraser(X, labels, shrinkage=shrinkage), fit_mean_projection(X, labels)):
        assert eraser.rank == 0
        assert_allclose(eraser(X), X)


def test_rows_that_do_not_vary_stay_as_they_are():
    labels = np.arange(6) % 2
    rounded = np.where(labels[:, None] == 0, 0.1 + 0.2, 0.3) * np.ones(4)  # differs with the label in the last digit
    for X in (np.full((6, 4), 0.1), rounded):
        for eraser in (fit_eraser(X, labels), fit_mean_projection(X, labels)):
            assert eraser.rank == 0
            assert (eraser(X) == X).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.booleans())
def test_no_other_projection_that_guards_changes_less_in_any_norm(seed, languages, flat):
    X, labels = parallel(seed=seed, languages=languages, units=6, of_seed=seed)
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 2 if flat else 6))
    least = fit_eraser(X, labels, shrinkage=0.0)(X)
    direction = np.linalg.svd(covariance_with(labels, X))[0][:, : languages - 1]
    # Every affine map with direction @ reader as its change, where reader @ direction is the identity, guards.
    reader = direction.T + rng.normal(size=(languages - 1, 6)) @ (np.eye(6) - direction @ direction.T)
    other = X - (X - X.mean(axis=0)) @ reader.T @ direction.T
    assert np.abs(covariance_with(labels, other)).max() < 1e-10
    precision = np.linalg.inv(np.cov(X.T))
    for inner in (np.eye(6), root @ root.T, precision):
        smallest = change(X, least, inner)
        assert smallest <= change(X, other, inner) * (1 + 1e-9)
        assert smallest <= change(X, fit_mean_projection(X, labels)(X), inner) * (1 + 1e-9)


def test_less_is_changed_than_by_the_mean_projection():
    X, labels = parallel(units=20, apart=0.3)
    inner = np.eye(20)
    assert change(X, fit_eraser(X, labels)(X), inner) < 0.7 * change(X, fit_mean_projection(X, labels)(X), inner)


def test_full_shrinkage_is_the_mean_projection():
    X, labels = parallel(items=6, units=30)
    assert_allclose(fit_eraser(X, labels, shrinkage=1.0)(X), fit_mean_projection(X, labels)(X), atol=1e-11)


def test_shrinkage_is_that_of_ledoit_and_wolf():
    for items, units in ((5, 50), (60, 20)):
        X, labels = parallel(items=items, units=units)
        assert fit_eraser(X, labels).shrinkage == pytest.approx(ledoit_wolf_shrinkage(X), rel=1e-9)
    few, many = (fit_eraser(*parallel(items=n)).shrinkage for n in (10, 1000))
    assert many < few / 20


def test_with_as_many_rows_as_units_new_rows_are_blown_up_unless_the_covariance_is_shrunk():
    rng = np.random.default_rng(0)
    sizes = np.arange(1, 61) ** -0.5
    labels = np.tile(np.arange(4), 15)
    X, new = (sizes * rng.normal(size=(n, 60)) + 0.2 * (np.arange(n) % 4 == 0)[:, None] for n in (60, 400))
    default, none, full = (change(new, fit_eraser(X, labels, shrinkage=a)(new), np.eye(60)) for a in (None, 0.0, 1.0))
    assert default < full < none / 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([4, 30]))
def test_rotated_rows_are_erased_alike(seed, items):
    X, labels = parallel(seed=seed, items=items, units=15)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(15, 15)))[0]
    for fit in (fit_eraser, fit_mean_projection):
        assert_allclose(fit(X @ rotation, labels)(X @ rotation), fit(X, labels)(X) @ rotation, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("fit", [fit_eraser, fit_mean_projection])
def test_rows_of_another_scale_are_erased_alike(fit, scale):
    X, labels = parallel()
    assert_allclose(fit(X * scale, labels)(X * scale) / scale, fit(X, labels)(X), rtol=1e-9)


def test_without_shrinkage_units_of_another_scale_are_erased_alike():
    X, labels = parallel()
    scales = np.geomspace(1e-3, 1e3, X.shape[1])
    found = fit_eraser(X * scales, labels, shrinkage=0.0)(X * scales) / scales
    assert_allclose(found, fit_eraser(X, labels, shrinkage=0.0)(X), atol=1e-8)


def test_held_out_languages_are_near_chance_when_items_outnumber_units():
    X, labels = parallel(items=800, apart=0.5)
    train, test = parallel(seed=1, items=800, apart=0.5), parallel(seed=2, items=400, apart=0.5)
    eraser = fit_eraser(X, labels)
    reader = LogisticRegression(max_iter=500)
    assert reader.fit(*train).score(*test) > 0.8
    assert reader.fit(eraser(train[0]), train[1]).score(eraser(test[0]), test[1]) < 0.25 + 0.06


def test_a_reader_fitted_on_new_items_finds_the_concept_again_when_units_outnumber_items():
    X, labels = parallel(items=20, units=100)
    train, test = parallel(seed=1, items=300, units=100), parallel(seed=2, items=100, units=100)
    eraser = fit_eraser(X, labels)
    reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    assert reader.fit(eraser(train[0]), train[1]).score(eraser(test[0]), test[1]) > 0.4


def test_what_else_the_rows_say_is_kept():
    X, labels = parallel(items=300, units=20)
    rng = np.random.default_rng(3)
    truth = np.repeat(rng.integers(0, 2, 300), 4)
    direction = np.linalg.svd(covariance_with(labels, X))[0][:, -1]  # across all differences of languages
    X = X + 3 * np.outer(truth, direction)
    erased = fit_eraser(X, labels)(X)
    half = len(X) // 2
    reader = LogisticRegression(max_iter=500).fit(erased[:half], truth[:half])
    assert reader.score(erased[half:], truth[half:]) > 0.95


def test_a_lower_rank_takes_the_directions_in_which_means_differ_most():
    labels = np.repeat([0, 1, 2], 2)
    means = np.array([[4.0, 1, 0], [-4, 1, 0], [0, -2, 0]])
    noise = np.tile([[0.0, 0, 1], [0, 0, -1]], (3, 1))
    X = means[labels] + noise
    assert fit_mean_projection(X, labels).rank == 2
    assert_allclose(fit_mean_projection(X, labels, rank=1)(X), X * [0, 1, 1], atol=1e-12)
    assert_allclose(fit_mean_projection(X, labels)(X), X * [0, 0, 1], atol=1e-12)


def test_values_of_a_concept_count_alike_however_many_rows_they_have():
    X, labels = parallel()
    more = np.r_[0 : len(X), np.tile(np.flatnonzero(labels == 1), 9)]
    once, often = (fit_mean_projection(X[r], labels[r], rank=1) for r in (slice(None), more))
    assert_allclose(once.left @ once.right, often.left @ often.right, atol=1e-12)


def test_float16_rows_are_summed_in_float64():
    X, labels = parallel(items=300)
    low = (X + 500).astype(np.float16)
    found = fit_eraser(low, labels)
    assert_allclose(found.mean, low.astype(np.float64).mean(axis=0))
    assert found(low).dtype == np.float64
    assert np.abs(covariance_with(labels, found(low))).max() < 1e-12 * 500


def test_arrays_of_more_axes_are_erased_row_by_row():
    X, labels = parallel()
    eraser = fit_eraser(X, labels)
    assert_allclose(eraser(X.reshape(40, 4, 12)), eraser(X).reshape(40, 4, 12))


def test_the_callers_rows_are_not_changed():
    X, labels = parallel()
    before = X.copy()
    fit_eraser(X, labels)(X)
    fit_mean_projection(X, labels)(X)
    assert (before == X).all()


def test_an_eraser_survives_a_file_without_pickle(tmp_path):
    X, labels = parallel()
    eraser = fit_eraser(X, labels)
    np.savez(tmp_path / "eraser.npz", **eraser.arrays())
    with np.load(tmp_path / "eraser.npz", allow_pickle=False) as arrays:
        again = Eraser.from_arrays(arrays)
    assert (again(X) == eraser(X)).all()
    assert again.shrinkage == eraser.shrinkage
    with pytest.raises(BabelScopeError, match="not an eraser"):
        Eraser.from_arrays({"mean": eraser.mean})
    with pytest.raises(BabelScopeError, match="not an eraser"):
        Eraser.from_arrays({**eraser.arrays(), "left": eraser.left[:-1]})
    with pytest.raises(BabelScopeError, match="not an eraser"):
        Eraser.from_arrays({**eraser.arrays(), "right": eraser.right[:, :-1]})


@pytest.mark.parametrize(
    ("X", "labels", "message"),
    [
        (np.ones((4, 2)), np.zeros(4), "all 4 rows have the same label"),
        (np.ones((4, 2)), np.arange(3), "labels of shape"),
        (np.ones(4), np.arange(4), "shape \\(4,\\)"),
        (np.array([[np.nan, 1], [0, 1]]), np.arange(2), "not finite"),
    ],
)
@pytest.mark.parametrize("fit", [fit_eraser, fit_mean_projection])
def test_what_cannot_be_erased_is_refused(fit, X, labels, message):
    with pytest.raises(BabelScopeError, match=message):
        fit(X, labels)


def test_weights_ranks_and_rows_that_do_not_fit_are_refused():
    X, labels = parallel()
    with pytest.raises(BabelScopeError, match="a shrinkage of 2"):
        fit_eraser(X, labels, shrinkage=2.0)
    for rank in (0, 4):
        with pytest.raises(BabelScopeError, match=f"a rank of {rank}"):
            fit_mean_projection(X, labels, rank=rank)
    with pytest.raises(BabelScopeError, match="fitted on 12 units"):
        fit_eraser(X, labels)(X[:, :5])
