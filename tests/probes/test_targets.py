"""What can be asked for, and what cannot."""

import numpy as np
import pytest

from babelscope.errors import BabelScopeError
from babelscope.probes.targets import target_of
from tests.analyses.planted import LANGUAGES, activations, write_store

ITEMS = tuple(f"q{i:03d}" for i in range(40))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    values = activations(np.random.default_rng(0), 3, 40, 4, shared=0.0)[None]
    facts = [
        {"rule": "ab"[i % 2], "depth": i % 3, "length": i * 1.5, "rare": "x" if i < 2 else "yz"[i % 2], "same": "s"}
        for i in range(40)
    ]
    del facts[7]["rule"]
    return write_store(tmp_path_factory.mktemp("t") / "s.acts", {"resid.post": values}, covariates=facts)


def test_a_covariate_is_one_label_an_item_in_all_languages(store):
    found = target_of(store, "rule", LANGUAGES, ITEMS, fewest=5)
    assert (found.scope, found.classes) == ("item", ("a", "b"))
    assert found.codes.shape == (3, 40)
    assert found.codes[1, :4].tolist() == [0, 1, 0, 1]
    assert found.codes[:, 7].tolist() == [-1, -1, -1]


def test_numbers_are_classes_when_few_and_quarters_when_many(store):
    assert target_of(store, "depth", LANGUAGES, ITEMS, fewest=5).classes == ("0", "1", "2")
    found = target_of(store, "length", LANGUAGES, ITEMS, fewest=5)
    assert len(found.classes) == 4
    assert np.bincount(found.codes[0]).tolist() == [10, 10, 10, 10]
    assert "by quarter" in found.note


def test_rare_classes_are_left_out_and_named(store):
    found = target_of(store, "rare", LANGUAGES, ITEMS, fewest=5)
    assert found.classes == ("y", "z")
    assert "x" in found.note
    assert (found.codes[:, :2] == -1).all()


def test_languages_and_scripts_are_labels_of_languages(store):
    language = target_of(store, "language", LANGUAGES, ITEMS, fewest=5)
    assert language.scope == "language"
    assert [language.classes[k] for k in language.codes[:, 0]] == list(LANGUAGES)
    with pytest.raises(BabelScopeError, match="1 classes"):
        target_of(store, "script", LANGUAGES, ITEMS, fewest=5)  # all planted texts are in Latin letters


@pytest.mark.parametrize(
    ("name", "said"), [("rules", "target"), ("same", "needs two"), ("correct", "no answers that were right or wrong")]
)
def test_what_cannot_be_asked_is_refused(store, name, said):
    with pytest.raises(BabelScopeError, match=said):
        target_of(store, name, LANGUAGES, ITEMS, fewest=5)
