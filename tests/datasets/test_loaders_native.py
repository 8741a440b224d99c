import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope import plugins
from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    ['"quoted", \\n', "\u200fעברית\u200e", "a\r\nb\n\u2028\x85c\x00", "\ufeffmark", "{language}"]
)
FILLED = TEXT.filter(str.strip)
SCALAR = TEXT | st.integers() | st.booleans() | st.floats(allow_nan=False)


@st.composite
def prompt_sets(draw):
    """Sets in row order, some items missing in some languages, labels equal in all of them."""
    languages = draw(st.lists(st.sampled_from(["en", "ar", "zh-Hant", "pt_BR"]), min_size=1, unique=True))
    items = draw(st.lists(FILLED, min_size=1, max_size=4, unique=True))
    prompts = []
    facts = {i: (draw(st.dictionaries(TEXT, SCALAR, max_size=3)), draw(st.none() | st.integers(0, 1))) for i in items}
    for language in languages:
        # The first item is in every language: sets without any common item are refused.
        for item in [i for i in items if i == items[0] or draw(st.booleans())]:
            text = draw(FILLED)
            cut = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
            segments = draw(st.sampled_from([(), (Segment("question", cut[0], cut[1], language),)]))
            covariates, gold = facts[item]
            options = (draw(TEXT), draw(TEXT))
            prompts.append(Prompt(item, language, text, segments, ("A", "B"), options, gold, draw(TEXT), covariates))
    return PromptSet("any", tuple(prompts))


def types_of(prompts):
    return [[type(v) for v in p.covariates.values()] for p in prompts.prompts]


@given(prompt_sets())
def test_what_is_written_is_read_back_exactly(prompts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        write_prompts(prompts, path)
        again, _ = load_prompts(path)
    assert again.prompts == prompts.prompts
    assert types_of(again) == types_of(prompts)  # True == 1 == 1.0, so equality alone would not see a changed type
    assert again.digest() == prompts.digest()


@pytest.mark.parametrize("name", plugins.names("dataset"))
def test_generated_prompts_are_read_back_exactly(tmp_path, name):
    recipe = plugins.load("dataset", name)
    prompts = recipe(items=4).generate(["en", "ru", "ar"])
    write_prompts(prompts, tmp_path / "made.jsonl")
    again, notes = load_prompts(tmp_path / "made.jsonl")
    assert again.prompts == prompts.prompts
    assert notes == []


def test_the_source_of_a_set_names_the_file_and_its_hash(tmp_path):
    write_prompts(PromptSet("p", (Prompt("a", "en", "one"),)), tmp_path / "p.jsonl")
    prompts, _ = load_prompts(tmp_path / "p.jsonl")
    (file,) = prompts.source["files"]
    assert file["file"] == str(tmp_path / "p.jsonl")
    assert len(file["sha256"]) == 64
    json.dumps(prompts.source)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": " "}, "field 'text' is empty"),
        ({"text": 7}, "field 'text': Input should be a valid string"),
        ({"gold": 2, "letters": ["A", "B"], "options": ["x", "y"]}, "gold 2 is none of the 2 options"),
        ({"letters": ["A"], "options": ["x", "y"]}, "1 letters for 2 options"),
        ({"segments": [{"name": "q", "start": 0, "stop": 99, "language": "en"}]}, "leaves the text of 3 characters"),
        ({"segments": [{"name": "q"}]}, "field 'segments.0.start'"),
        ({"covariates": {"a": [1]}}, "field 'covariates.a"),
        ({"language": "English please"}, "is not a language code"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"text": "cut \ud83d"}, "field 'text' holds half a character (the lone surrogate '\\ud83d')"),
        ({"options": ["x", "\ud83d"], "letters": ["A", "B"]}, "field 'options' holds half a character"),
    ],
)
def test_a_native_line_that_is_not_a_prompt_is_refused_by_its_number(tmp_path, change, problem):
    path = tmp_path / "p.jsonl"
    good = Prompt("a", "en", "one").to_json()
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | {"item": "b"} | change) + "\n")
    with pytest.raises(BabelScopeError) as caught:
        load_prompts(path)
    assert f"{path}, line 2: " in caught.value.problem
    assert problem in caught.value.problem


def test_a_native_file_of_another_language_than_its_name_is_refused(tmp_path):
    write_prompts(PromptSet("p", (Prompt("a", "de", "eins"),)), tmp_path / "p.en.jsonl")
    with pytest.raises(BabelScopeError, match="language is 'de', while the file is that of 'en'"):
        load_prompts(f"{tmp_path}/p.{{language}}.jsonl")


def test_prompts_are_written_whole_or_not_at_all(tmp_path):
    good = PromptSet("p", (Prompt("a", "en", "one"),))
    write_prompts(good, tmp_path / "p.jsonl")
    with pytest.raises(BabelScopeError, match="half a character"):
        write_prompts(PromptSet("p", (Prompt("a", "en", "\ud800"),)), tmp_path / "p.jsonl")
    with pytest.raises(BabelScopeError, match="cannot be written"):
        write_prompts(good, tmp_path / "missing" / "p.jsonl")
    with pytest.raises(BabelScopeError, match="JSON Lines"):
        write_prompts(good, tmp_path / "p.csv")
    assert load_prompts(tmp_path / "p.jsonl")[0].prompts == good.prompts
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]
