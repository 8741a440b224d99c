import json

import pytest
from pydantic import ValidationError

from babelscope.errors import BabelScopeError
from babelscope.training.truth import Family, TruthTable, read_truth, write_truth

HALVES = {"en": ("a", "b"), "de": ("c",)}


def facts(sharing, items, **more):
    return Family(name="capital", kind="facts", sharing=sharing, languages=tuple(items), items=items, **more)


TABLE = TruthTable(
    languages=("en", "de"),
    families=(
        facts("halves", HALVES),
        Family(name="any", kind="reasoning", sharing="one", languages=("de",), depth=1, rule="any"),
    ),
    translations=(("en", "de"),),
)


def test_it_says_what_was_taught_where():
    assert TABLE.taught("capital", "en", "a")
    assert not TABLE.taught("capital", "de", "a")
    assert TABLE.taught("capital", "de")
    assert not TABLE.taught("any", "en")
    assert TABLE.taught("any", "de")


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(BabelScopeError, match="no family 'al'") as caught:
        TABLE.taught("al", "en")
    assert "capital, any" in caught.value.hint


def test_it_is_read_as_it_was_written(tmp_path):
    write_truth(TABLE, tmp_path)
    assert read_truth(tmp_path) == TABLE


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(BabelScopeError, match=r"has no truth\.json"):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [("languages", ["en"], "does not have"), ("version", 2, "version"), ("extra", 1, "extra")],
)
def test_a_damaged_table_is_refused_by_field(tmp_path, field, value, told):
    record = json.loads(TABLE.model_dump_json())
    (tmp_path / "truth.json").write_text(json.dumps({**record, field: value}), "utf-8")
    with pytest.raises(BabelScopeError, match=told):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("sharing", "items"),
    [
        ("all", HALVES),
        ("halves", {"en": ("a", "b"), "de": ("b",)}),
        ("halves", {"en": ("a",), "de": ("a",)}),
        ("one", HALVES),
        ("none", {"en": ("a",)}),
    ],
)
def test_a_sharing_that_the_items_deny_is_refused(sharing, items):
    with pytest.raises(ValidationError):
        facts(sharing, items)


@pytest.mark.parametrize("more", [{"depth": None}, {"depth": 1, "items": {"de": ("a",)}}])
def test_reasoning_has_a_depth_and_no_items(more):
    with pytest.raises(ValidationError):
        Family(name="any", kind="reasoning", sharing="one", languages=("de",), **more)
