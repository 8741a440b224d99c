"""The verb `probe` on stores whose truth is known, and as a process on the embedded model."""

import numpy as np
import pandas as pd
import pytest

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from tests.analyses.planted import write_store
from tests.analyses.test_transfer import store_of

LANGUAGES = ("en", "de", "sw")


def planted(folder, *, layers=3, n=90, seed=0):
    """A store whose layer 1 holds the rule in a shared direction, layer 2 in one for each language, layer 0 nowhere."""
    rng = np.random.default_rng(seed)
    rule = rng.permutation(np.arange(n) % 3)
    values = rng.normal(size=(layers, 3, n, 16))
    values[1] += 2 * rng.normal(size=(3, 16))[rule]
    for k in range(3):
        values[2, k] += 2 * rng.normal(size=(3, 16))[rule]
    values += 0.7 * rng.normal(size=(1, 3, 1, 16))
    facts = [{"rule": "abc"[r], "fact": f"f{i // 2}"} for i, r in enumerate(rule)]
    return write_store(folder / "s.acts", {"resid.post": values.astype(np.float32)}, covariates=facts)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    store = planted(tmp_path_factory.mktemp("p"))
    return bs.probe(store, "rule", permutations=99, n_boot=500)


def test_each_layer_is_judged_as_it_was_planted(found):
    table = found["probe"].table
    means = table[table["variant"] == "raw"].set_index(["layer", "pairs"])
    assert (means.loc[0].loc[["within", "across"], "verdict"] == "not distinguishable from the null").all()
    assert (means.loc[1].loc[["within", "across"], "verdict"] == "supported").all()
    assert means.loc[(2, "within"), "verdict"] == "supported"
    assert means.loc[(2, "across"), "score"] < means.loc[(2, "within"), "score"] - 0.2
    assert means.loc[(1, "across"), "transfer"] == pytest.approx(1, abs=0.1)
    assert np.isnan(means.loc[(0, "across"), "transfer"])  # nothing within, so no share of it


def test_every_pair_stands_beside_its_null_its_interval_and_its_n(found):
    table = found["probe"].table
    assert len(table) == 3 * 2 * (9 + 2)
    one = table[table["pairs"] == "one"]
    assert one[["score", "low", "high", "null", "gap", "p", "q", "p_max"]].notna().all(axis=None)
    assert (one["n"] == 90).all()
    assert one["null"].mean() == pytest.approx(1 / 3, abs=0.02)
    assert (one["low"] <= one["score"]).all()
    assert (one["score"] <= one["high"]).all()
    assert one["recognition"].notna().equals(one["language_a"] != one["language_b"])
    assert table["control"].isna().all()  # no covariate but the target and one value an item pair
    assert (table["q"] >= table["p"] - 1e-12).all()


def test_a_matrix_is_one_layer(found):
    matrix = found.matrix(1)
    assert matrix.index.tolist() == matrix.columns.tolist() == list(LANGUAGES)
    assert matrix.to_numpy().min() > 0.8
    with pytest.raises(BabelScopeError, match="layer 9"):
        found.matrix(9)


def test_the_rows_of_items_agree_with_the_table(found):
    items = found.items
    assert set(items["item"]) == set(found.store.items)
    part = items[(items["layer"] == 1) & (items["variant"] == "raw")]
    cell = found["probe"].table.query("layer == 1 and variant == 'raw' and pairs == 'within'")
    assert part["within"].mean() == pytest.approx(cell["score"].iloc[0])
    assert (part["within"] == (part["label"] == part["predicted"])).all()


def test_what_was_saved_predicts_and_names_its_store(found, tmp_path):
    found.save(tmp_path / "out")
    again = bs.load_probes(tmp_path / "out")
    assert again.about["store"] == found.store.fingerprint
    rows = found.store.select("resid.post@1", languages=["sw"]).numpy()[0]
    said = again.at("resid.post@1", "last", "en").predict(rows)
    rules = found.store.covariates["rule"].to_numpy()
    assert (np.array(again.classes)[said] == rules).mean() > 0.9
    table = Result.load(tmp_path / "out" / "tables" / "probe").table
    pd.testing.assert_frame_equal(table, found["probe"].table, check_dtype=False)


def test_numbers_do_not_depend_on_workers_nor_on_the_order_of_items(tmp_path):
    store = planted(tmp_path, n=30)
    a, b = (bs.probe(store, "rule", permutations=39, n_boot=50, jobs=jobs)["probe"].table for jobs in (1, 2))
    pd.testing.assert_frame_equal(a, b)


def test_items_of_a_group_are_tested_together_and_controls_have_types(tmp_path):
    store = planted(tmp_path, n=60)
    options = {"control": "fact", "permutations": 39, "n_boot": 50}
    apart = bs.probe(store, "rule", **options)["probe"].table
    assert apart[["control", "control_low", "selectivity_low", "selectivity_high"]].notna().all(axis=None)
    assert apart["n_control"].between(20, 60).all()
    assert (apart["n_groups"] == 60).all()
    found = bs.probe(store, "rule", group="fact", **options)
    assert found["probe"].provenance["group"] == "fact"
    assert (found["probe"].table["n_groups"] == 30).all()
    # A fact that is never split never comes back: no label of it could be known.
    assert found["probe"].table["control"].isna().all()
    assert (found["probe"].table["n_control"] == 0).all()


def test_languages_are_told_apart_by_one_probe_for_all(tmp_path):
    store = planted(tmp_path, n=60)
    found = bs.probe(store, "language", variants=["raw", "erased"], permutations=39, n_boot=100)
    table = found["probe"].table.query("pairs == 'all'").set_index(["variant", "layer"])
    assert (table.loc["raw", "score"] > 0.9).all()
    assert (table.loc["raw", "verdict"] == "supported").all()
    assert (table.loc["erased", "score"] < 0.7).all()
    assert list(found.fitted.probes) == [(f"resid.post@{k}", "last", "*") for k in range(3)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "rulz"}, "target"),
        ({"target": "rule", "probe": "rigde"}, "ridge"),
        ({"target": "rule", "variants": ["Raw"]}, "variant"),
        ({"target": "rule", "group": "facts"}, "fact"),
        ({"target": "rule", "settings": {"alpha": 1}}, "alpha"),
        ({"target": "fact"}, "0 classes"),
        ({"target": "rule", "permutations": 5}, "5 shuffles"),
        ({"target": "rule", "folds": 1}, "1 folds"),
        ({"target": "language", "languages": ["en"]}, "one language"),
        ({"target": "rule", "sites": ["mlp.act"]}, "mlp.act"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_a_line(tmp_path, options, said):
    with pytest.raises(BabelScopeError, match=said):
        bs.probe(planted(tmp_path, n=30), **options)


def test_erasing_language_is_shown_before_and_after(tmp_path):
    store = planted(tmp_path, n=120)
    found = bs.probe(store, "rule", variants=["raw", "erased"], permutations=39, n_boot=200)
    table = found["erasure"].table.set_index(["value", "layer"])
    assert (table.loc["language", "before"] > 0.85).all()
    assert (table.loc["language", "after"] < 0.6).all()
    assert (table.loc["language", "verdict"] == "supported").all()
    assert table.loc[("target within", 1), "after"] > 0.9  # the rule stays
    assert table.loc[("cosine gap", 1), ["before", "after"]].notna().all()
    assert (table["n"] == 120).all()
    assert table.loc[("retrieval", 0), "chance"] == pytest.approx(1 / 24)


def test_description_lengths_tell_the_layers_apart(tmp_path):
    store = planted(tmp_path, n=64)
    options = {"languages": ["en"], "sites": ["resid.post@0:2"], "permutations": 39, "n_boot": 50}
    found = bs.probe(store, "rule", mdl=True, **options)
    table = found["description-length"].table.set_index(["layer", "language"])
    assert table.loc[0, "compression"].max() < 1.1
    assert table.loc[1, "saved"].min() > 0.15
    assert table.loc[(1, "en"), "p"] == pytest.approx(0.05)
    assert (table["worst_order"] <= table["compression"]).all()


def test_a_language_without_wrong_answers_is_left_out_of_the_means(tmp_path):
    right = {"en": [1.0] * 60, "de": [i % 2 for i in range(60)], "sw": [i % 3 > 0 for i in range(60)]}
    store = store_of(tmp_path, right)
    found = bs.probe(store, "correct", sites=["resid.post"], variants=["raw"], permutations=39, n_boot=50)
    table = found["probe"].table.query("layer == 0")
    one = table[table["pairs"] == "one"].set_index(["language_a", "language_b"])
    assert one.loc["en", "score"].isna().all()  # nothing to be learned
    assert np.isnan(one.loc[("de", "en"), "score"])
    assert one.loc[("de", "en"), "verdict"] == "not testable with this data"
    means = table[table["pairs"] != "one"].set_index("pairs")
    assert means["n_pairs"].to_dict() == {"within": 2, "across": 2}
    assert means[["score", "low", "high", "null", "p"]].notna().all(axis=None)


def test_activations_that_do_not_vary_are_not_testable(tmp_path):
    values = np.ones((1, 3, 30, 8), np.float32)
    store = write_store(
        tmp_path / "s.acts", {"resid.post": values}, covariates=[{"rule": "ab"[i % 2]} for i in range(30)]
    )
    for name in ("ridge", "mass-mean"):
        table = bs.probe(store, "rule", probe=name, permutations=39, n_boot=20)["probe"].table
        assert table["p"].isna().all()
        assert set(table["verdict"]) == {"not testable with this data"}


def test_one_good_layer_of_many_is_supported_by_few_shuffles(tmp_path):
    rng = np.random.default_rng(0)
    rule = np.arange(60) % 2
    values = rng.normal(size=(12, 3, 60, 8))
    values[5] += 4 * rng.normal(size=(2, 8))[rule]
    store = write_store(
        tmp_path / "s.acts", {"resid.post": values.astype(np.float32)}, covariates=[{"rule": "ab"[r]} for r in rule]
    )
    table = bs.probe(store, "rule", variants=["raw"], n_boot=100)["probe"].table
    assert set(table[table["verdict"] == "supported"]["layer"]) == {5}
    means = table[table["pairs"] != "one"]
    assert (means[means["layer"] == 5]["verdict"] == "supported").all()
