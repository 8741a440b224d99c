"""Mixed texts and controls that change the same words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.datasets.lexicon import Lexicon, own_lexicon, read_lexicon
from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.datasets.perturbed import (
    CONTROLS,
    DROPPED,
    MIXED,
    NO_LANGUAGE,
    RANDOM,
    SAME,
    VARIANTS,
    WRONG,
    perturbed,
)
from babelscope.datasets.switching import switching_degree
from babelscope.datasets.text_units import word_spans, words
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment

CODES = ("en", "de", "fr")
LEXICON = Lexicon(CODES, tuple({g: f"{g}word{i}" for g in CODES} for i in range(40)), "made")


def texts(n=30, of=10, known=10):
    """Items of `of` words, of which the lexicon has the first `known`."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        own = [f"enword{k}" for k in rng.choice(40, size=known, replace=False)]
        text = " ".join(own + [f"plain{k}" for k in range(of - known)]) + "."
        made.append(Prompt(f"q{i}", "en", text, covariates={"task": "t"}))
    return PromptSet("texts", tuple(made))


def by_variant(made, item):
    return {p.language: p for p in made.prompts if p.item == item}


def test_every_variant_changes_the_same_words_and_no_others():
    made, reached = perturbed(texts(), "en", LEXICON, translate_rate=0.3)
    assert made.languages == ("en", *VARIANTS)
    for row in reached:
        found = {code: words(p.text) for code, p in by_variant(made, row.item).items()}
        places = [k for k, (a, b) in enumerate(zip(found["en"], found[MIXED], strict=True)) if a != b]
        assert len(places) == row.translated == row.replaced == 3
        for code in (RANDOM, WRONG, SAME):
            assert [k for k, (a, b) in enumerate(zip(found["en"], found[code], strict=True)) if a != b] == places
        assert list(found[DROPPED]) == [w for k, w in enumerate(found["en"]) if k not in places]


def test_each_variant_puts_in_what_it_is_named_after():
    made, _ = perturbed(texts(), "en", LEXICON, translate_rate=0.3)
    for item in made.items:
        found = {code: words(p.text) for code, p in by_variant(made, item).items()}
        for k, word in enumerate(found["en"]):
            if found[MIXED][k] == word:
                continue
            language, number = found[MIXED][k][:2], found[MIXED][k][6:]
            assert language in ("de", "fr")
            assert word == f"enword{number}"  # a translation of this very word
            assert found[WRONG][k].startswith(language)
            assert not found[WRONG][k].endswith(f"word{number}")
            assert found[SAME][k].startswith("enword")
            assert found[SAME][k] != word


def test_segments_say_in_which_language_each_word_is():
    prompts = texts(n=4)
    named = PromptSet("named", tuple(
        replace(p, segments=(Segment("context", 0, cut, "en"), Segment("question", cut + 1, len(p.text), "en")))
        for p in prompts.prompts for cut in [p.text.index(" ", 30)]
    ))  # fmt: skip
    made, _ = perturbed(named, "en", LEXICON, translate_rate=0.3, random_text=lambda word, rng: "noise")
    assert made.of("en") == named.prompts
    for prompt in made.prompts:
        assert {s.name for s in prompt.segments} == {"context", "question"}
        assert "".join(prompt.text[s.start : s.stop] for s in prompt.segments) == (
            prompt.segment("context") + prompt.segment("question")
        )
        for start, stop in word_spans(prompt.text):
            word = prompt.text[start:stop]
            (language,) = [s.language for s in prompt.segments if s.start <= start and stop <= s.stop]
            assert language == (NO_LANGUAGE if word == "noise" else word[:2] if "word" in word else "en")
        assert len(switching_degree(PromptSet("p", (prompt,)))) == 1


def test_a_text_without_segments_becomes_one_segment():
    made, _ = perturbed(texts(n=1), "en", LEXICON, translate_rate=0.1)
    for prompt in made.prompts:
        assert prompt.segment("text") == prompt.text


def test_rates_are_apart_and_the_smaller_one_changes_words_of_the_larger_one():
    made, reached = perturbed(texts(), "en", LEXICON, translate_rate=0.8, replace_rate=0.2)
    assert {(r.translated, r.replaced) for r in reached} == {(8, 2)}
    for item in made.items:
        found = {code: words(p.text) for code, p in by_variant(made, item).items()}
        mixed, wrong = ({k for k in range(10) if found[code][k] != found["en"][k]} for code in (MIXED, WRONG))
        assert wrong < mixed


def test_a_rate_beyond_what_the_lexicon_has_is_reached_as_far_as_it_goes():
    _, reached = perturbed(texts(of=10, known=2), "en", LEXICON, translate_rate=0.5)
    assert {(r.words, r.candidates, r.translated) for r in reached} == {(10, 2, 2)}


def test_items_without_a_known_word_are_left_out_and_counted():
    odd = PromptSet("odd", (*texts(n=3).prompts, Prompt("none", "en", "nothing known"), Prompt("one", "en", "enword1")))
    made, reached = perturbed(odd, "en", LEXICON)
    assert "none" not in made.items
    assert "one" not in made.items  # nothing would be left of it without its word
    assert [r.item for r in reached if not r.translated] == ["none", "one"]
    with pytest.raises(BabelScopeError, match="no text in en"):
        perturbed(PromptSet("odd", odd.prompts[3:4]), "en", LEXICON)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.3, 0.6]))
def test_an_item_depends_on_nothing_but_itself_and_the_seed(seed, rate):
    many, few = texts(n=6), texts(n=6).select(limit=2)
    options = {"translate_rate": rate, "seed": seed, "random_text": lambda word, rng: f"t{rng.integers(99)}"}
    a, b = (perturbed(p, "en", LEXICON, **options)[0] for p in (many, few))
    kept = {(p.item, p.language): p for p in a.prompts}
    assert all(kept[p.item, p.language] == p for p in b.prompts)


def test_another_seed_changes_other_words():
    first, second = (perturbed(texts(), "en", LEXICON, seed=s)[0] for s in (0, 1))
    assert first.of("en") == second.of("en")
    assert all(first.of(code) != second.of(code) for code in VARIANTS)


def test_what_an_item_is_stays_and_the_set_is_read_back(tmp_path):
    prompts, _ = load_prompts("kfrd-symbolic", languages=["en"])
    made, reached = perturbed(prompts.select(limit=12), "en")
    for p in made.prompts:
        (original,) = [q for q in prompts.prompts if q.item == p.item]
        assert (p.gold, p.options, p.covariates) == (original.gold, original.options, original.covariates)
        assert {s.name for s in p.segments} == {s.name for s in original.segments}
    assert all(abs(r.translated / r.words - 0.16) < 0.02 for r in reached)
    write_prompts(made, tmp_path / "p.jsonl")
    assert load_prompts(tmp_path / "p.jsonl")[0].prompts == made.prompts


def test_capitals_stay_where_the_word_began_with_one():
    lexicon = Lexicon(("en", "fr"), ({"en": "cheese", "fr": "fromage"}, {"en": "Rome", "fr": "Rom"},
                                     {"en": "salt", "fr": "sel"}), "made")  # fmt: skip
    prompts = PromptSet("p", (Prompt("a", "en", "Cheese is here"), Prompt("b", "en", "see cheese here")))
    made, _ = perturbed(prompts, "en", lexicon)
    assert [p.text for p in made.of(MIXED)] == ["Fromage is here", "see fromage here"]
    assert [p.text for p in made.of(DROPPED)] == ["is here", "see here"]


def test_random_words_of_the_texts_stand_in_for_tokens_without_a_vocabulary():
    made, _ = perturbed(texts(), "en", LEXICON)
    assert made.source[RANDOM] == "random words of the texts of the set"
    said = {w for p in texts().prompts for w in words(p.text)}
    assert all(set(words(p.text)) <= said for p in made.of(RANDOM))


def test_the_longest_entry_is_found_and_none_inside_it():
    lexicon = Lexicon(("en", "de"), ({"en": "New York", "de": "Neuyork"}, {"en": "york", "de": "Jork"}), "made")
    assert [c for _, _, c in lexicon.found("York, new york and New, York", "en")] == [1, 0, 1]
    chinese = Lexicon(("zh", "en"), ({"zh": "大象", "en": "elephant"}, {"zh": "象", "en": "figure"}), "made")
    assert chinese.found("一头大象。", "zh") == [(2, 4, 0)]


def test_our_own_lexicon_is_aligned_in_fourteen_languages():
    own = own_lexicon()
    assert len(own.languages) == 14
    assert all(set(c) == set(own.languages) for c in own.concepts)
    elephant = own.concepts[own.found("an elephant", "en")[0][2]]
    assert (elephant["de"], elephant["sw"]) == ("Elefant", "tembo")


def test_a_lexicon_is_a_table_of_languages(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("key\ten\tde\n1\tdog\tHund\n2\tcat\t\n\n", "utf-8")
    found = read_lexicon(path)
    assert found.languages == ("en", "de")
    assert found.concepts == ({"en": "dog", "de": "Hund"}, {"en": "cat"})
    assert "words.tsv, sha256 " in found.source


@pytest.mark.parametrize(("text", "problem"), [
    ("", "header"), ("en\n", "header"), ("en\ten\na\tb\n", "header"), ("en\tde\n", "no words"),
    ("en\tde\na\n", "line 2"),
])  # fmt: skip
def test_a_table_that_is_no_lexicon_is_refused(tmp_path, text, problem):
    (tmp_path / "w.tsv").write_text(text)
    with pytest.raises(BabelScopeError, match=problem):
        read_lexicon(tmp_path / "w.tsv")
    with pytest.raises(BabelScopeError, match="cannot be read"):
        read_lexicon(tmp_path / "none.tsv")
    (tmp_path / "w.tsv").write_bytes(b"en\tde\n\xff\t\n")
    with pytest.raises(BabelScopeError, match="UTF-8"):
        read_lexicon(tmp_path / "w.tsv")


@pytest.mark.parametrize(("change", "problem"), [
    ({"translate_rate": 0.0}, "share of 0"), ({"translate_rate": 1.5}, "share of 1.5"), ({"replace_rate": -1}, "share"),
    ({"language": "ja"}, "language in these prompts"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused(change, problem):
    with pytest.raises(BabelScopeError, match=problem):
        perturbed(texts(n=1), **{"language": "en", "lexicon": LEXICON} | change)


def test_a_language_without_words_or_without_another_word_is_refused():
    with pytest.raises(BabelScopeError, match="language in the lexicon"):
        perturbed(texts(n=1), "en", Lexicon(("de", "fr"), ({"de": "a", "fr": "b"},), "made"))
    single = Lexicon(("en", "fr"), ({"en": "plain0", "fr": "simple0"},), "made")
    with pytest.raises(BabelScopeError, match="no other word"):
        perturbed(texts(n=3, known=5), "en", single)


def mixed_by_hand():
    """Six words and a number: three English, two French, one of nonsense; two changes among the five that count."""
    text = "one two trois quatre noise five 6"
    spans = [("en", 0, 8), ("fr", 8, 21), ("zxx", 21, 26), ("en", 27, 33)]
    return Prompt("q", "mixed", text, tuple(Segment("text", a, b, g) for g, a, b in spans))


def test_the_degree_of_switching_is_that_of_the_formulas():
    prompts = PromptSet("p", (mixed_by_hand(), Prompt("q", "en", "all in one language"), Prompt("r", "en", "12 7")))
    table = switching_degree(prompts).set_index(["item", "language"])
    row = table.loc["q", "mixed"]
    assert (row["n_words"], row["n_languages"]) == (5, 2)
    assert row["cmi"] == pytest.approx(100 * (1 - 3 / 5))
    assert row["i_index"] == pytest.approx(2 / 4)
    squares = (3 / 5) ** 2 + (2 / 5) ** 2
    assert row["m_index"] == pytest.approx((1 - squares) / squares)
    assert tuple(table.loc["q", "en"][["cmi", "i_index", "m_index"]]) == (0, 0, 0)
    assert table.loc["r", "en"][["cmi", "i_index", "m_index"]].isna().all()


def test_mixed_texts_switch_and_texts_of_the_same_language_do_not():
    made, _ = perturbed(texts(), "en", LEXICON, translate_rate=0.3)
    means = switching_degree(made).groupby("language")["cmi"].mean()
    assert means[MIXED] == means[WRONG] == pytest.approx(30)
    assert means[["en", DROPPED, SAME, RANDOM]].abs().max() == 0
    assert set(CONTROLS) < set(means.index)
