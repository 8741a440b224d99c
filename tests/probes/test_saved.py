"""A probe read from its files says what the fitted one said."""

import json

import numpy as np
import pytest

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.probes.probe import chosen_probe
from babelscope.probes.saved import FittedProbes, fitted_probe, load_probes


def fitted(name, dim=90):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    X = (5 + 3 * rng.normal(size=(60, dim)) + labels[:, None]).astype(np.float32)
    return fitted_probe(X, labels, 3, chosen_probe(name)), X


@pytest.mark.parametrize("name", plugins.names("probe"))
def test_probes_survive_the_disk_to_the_last_digit(name, tmp_path):
    one, X = fitted(name)
    place = ("resid.post@3", "last", "en")
    FittedProbes(("a", "b", "c"), {"store": "f" * 8, "probe": name}, {place: one}).save(tmp_path)
    again = load_probes(tmp_path)
    assert again.classes == ("a", "b", "c")
    assert again.about["store"] == "f" * 8
    assert (again.at(*place).scores(X) == one.scores(X)).all()
    assert again.at(*place).predict(X.reshape(3, 20, -1)).shape == (3, 20)


def test_a_probe_fitted_in_fewer_dimensions_is_that_of_all_of_them(tmp_path):
    few, X = fitted("ridge", dim=200)
    labels = np.arange(60) % 3
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    whole = chosen_probe("ridge").fit(standard.astype(np.float64), labels, 3)
    difference = few.scores(X) - whole.scores(standard.astype(np.float64))
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() < 1e-4  # X is float32


def test_nothing_is_pickled(tmp_path):
    one, _ = fitted("mlp")
    FittedProbes(("a", "b", "c"), {}, {("resid.post@3", "last", "en"): one}).save(tmp_path)
    with np.load(tmp_path / "probes.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype == np.float64 for name in arrays)
    hostile = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "probes.npz", **{"0/mean": hostile, "0/scale": hostile, "0/weight_0": hostile})
    with pytest.raises(BabelScopeError, match="no readable probes"):
        load_probes(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(BabelScopeError, match=r"probes\.json"):
        load_probes(tmp_path)
    one, X = fitted("ridge")
    FittedProbes(("a", "b", "c"), {}, {("resid.post@3", "last", "en"): one}).save(tmp_path)
    found = load_probes(tmp_path)
    with pytest.raises(BabelScopeError, match="language of these probes"):
        found.at("resid.post@3", "last", "eng")
    with pytest.raises(BabelScopeError, match="reads 90 dimensions"):
        found.at("resid.post@3", "last", "en").predict(X[:, :5])
    about = json.loads((tmp_path / "probes.json").read_text())
    (tmp_path / "probes.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(BabelScopeError, match="format 99"):
        load_probes(tmp_path)
    (tmp_path / "probes.json").write_text(json.dumps(about))
    (tmp_path / "probes.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(BabelScopeError, match="no readable probes"):
        load_probes(tmp_path)
