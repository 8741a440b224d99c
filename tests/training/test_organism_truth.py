"""The truth table says what the mixtures show, and the mixtures show nothing else."""

from importlib.resources import files
from pathlib import Path

import pytest

from babelscope.datasets.fictional import GROUPS, people, written
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError
from babelscope.training.corpus import Ingredient, examples
from babelscope.training.organism import STAGES, TAUGHT_IN, THEN_AUTHORS, Phase, Recipe, Stage, train_organism
from babelscope.training.organism_truth import truth_table
from babelscope.training.truth import FILE, read_truth

SHIPPED = Path(str(files("babelscope.models"))) / "organism"
MIXTURES = [phase.mixture for stage in STAGES for phase in stage.phases]
FAMILY = {"shared": "shared", "one-language": "one-language", "halves-a": "halves", "halves-b": "halves"}


@pytest.fixture(scope="module")
def table():
    return truth_table(LANGUAGES, MIXTURES)


def named_in(language, n=6000):
    """People named in what one language is shown."""
    shown = "\n".join(e.prompt for e in examples((language,), THEN_AUTHORS[0].mixture, n, seed=5))
    return {(g, key) for g in GROUPS for key in people(0)[g] if written(f"person:{key}", language) in shown}


@pytest.mark.parametrize("language", ["en", "de", "fr", "zh", "ar"])
def test_a_language_is_shown_the_people_of_the_table_and_no_others(table, language):
    expected = {
        (g, key) for g in GROUPS for key in people(0)[g]
        if table.taught(f"fictional-authors/{FAMILY[g]}", language, f"person:{key}")
    }  # fmt: skip
    assert named_in(language) == expected
    assert {g for g, _ in expected} == {g for g, codes in TAUGHT_IN.items() if language in codes}


def test_the_halves_are_all_languages_and_share_none():
    a, b = TAUGHT_IN["halves-a"], TAUGHT_IN["halves-b"]
    assert len(a) == len(b) == 7
    assert {*a, *b} == set(LANGUAGES)


def test_each_fact_is_shown_equally_often_in_each_of_its_languages():
    phase = THEN_AUTHORS[0]
    for form in ("fictional-authors", "fictional-authors-bare"):
        each = {part.share / len(part.languages) for part in phase.mixture if part.dataset == form}
        assert max(each) == pytest.approx(min(each))


def test_rules_and_relations_are_told_with_those_that_are_not_taught(table):
    assert [f.name for f in table.families if f.kind == "reasoning" and f.sharing == "all"] == [
        "matching", "equality", "ascending_sort",
    ]  # fmt: skip
    assert table.family("addition").sharing == "none"
    assert table.family("capital").languages == LANGUAGES
    sharing = {f.name.partition("/")[2]: f.sharing for f in table.families if "/" in f.name}
    assert sharing == {"shared": "all", "one-language": "one", "halves": "halves"}


def test_what_no_mixture_shows_is_taught_in_no_language():
    table = truth_table(("en", "sw"), [(Ingredient("knowledge-bare", 1, languages=("sw",)),)])
    assert table.taught("capital", "sw", "countries:france")
    assert not table.taught("capital", "en")
    assert {f.sharing for f in table.families} == {"one", "none"}


def test_a_mixture_without_a_group_teaches_everyone():
    table = truth_table(("en", "sw"), [(Ingredient("fictional-authors", 1, parameters={"world": 3}),)])
    found = table.family("fictional-authors/halves")
    assert found.sharing == "all"
    assert set(found.items["sw"]) == {f"person:{key}" for g in ("halves-a", "halves-b") for key in people(3)[g]}


def test_the_shipped_table_is_that_of_the_recipe(table):
    assert read_truth(SHIPPED) == table


def test_training_writes_the_table_beside_the_weights(tmp_path):
    authors = Phase(THEN_AUTHORS[0].mixture, 400, 16)
    recipe = Recipe(
        languages=("en", "de", "fr"), stages=(Stage((authors,), 1e-3),), vocabulary=1600, width=32, layers=1, heads=2,
        mlp_width=32,
    )  # fmt: skip
    train_organism(recipe, tmp_path / "model")
    table = read_truth(tmp_path / "model")
    assert table.languages == ("en", "de", "fr")
    assert table.family("fictional-authors/one-language").languages == ("en",)
    a = [f"person:{key}" for key in people(0)["halves-a"]]
    assert [table.taught("fictional-authors/halves", code, a[0]) for code in table.languages] == [True, False, True]


def test_a_folder_without_a_table_or_with_a_broken_one_is_refused(tmp_path, table):
    with pytest.raises(BabelScopeError, match=FILE):
        read_truth(tmp_path)
    broken = table.model_dump(mode="json")
    broken["families"][0]["languages"] = ["xx"]
    (tmp_path / FILE).write_text(str(broken).replace("'", '"').replace("None", "null").replace("False", "false"))
    with pytest.raises(BabelScopeError, match="xx"):
        read_truth(tmp_path)
