"""Mixed-language corpora and their controls."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.datasets.mixed_corpus import CHUNK, mixed_corpus
from babelscope.datasets.text_units import word_spans, words
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet

LANGUAGES = ("en", "fr", "de", "es", "it")


def corpus(documents, languages=LANGUAGES):
    """Documents of sentences whose words say where they stand: `en-3-1-w7`, with as many words as asked for."""
    prompts = []
    for language in languages:
        for d, sentences in enumerate(documents):
            lines = [" ".join(f"{language}{d}s{s}w{w}" for w in range(n)) + "." for s, n in enumerate(sentences)]
            prompts.append(Prompt(f"d{d}", language, "\n".join(lines)))
    return PromptSet("corpus", tuple(prompts))


MANY = corpus([[9, 20, 3, 17]] * 60)


def said(prompt):
    """The parts of a text by language."""
    return [(s.language, prompt.text[s.start : s.stop]) for s in prompt.segments]


@pytest.mark.parametrize("unit", ["document", "sentence", "chunk", "unmixed"])
def test_every_part_is_in_the_language_it_is_said_to_be_in(unit):
    made = mixed_corpus(MANY, unit)
    assert made.languages == ("mixed",)
    assert made.items == MANY.items
    for prompt in made.prompts:
        parts = said(prompt)
        assert prompt.covariates["switches"] == len(parts) - 1
        assert all(w.startswith(language) for language, text in parts for w in words(text))
        assert all(a[0] != b[0] for a, b in pairwise(parts))
        assert " ".join(text for _, text in parts) == prompt.text


@pytest.mark.parametrize("unit", ["document", "sentence", "chunk"])
def test_units_come_in_order_whole_and_once(unit):
    # All translations have equally many words, so every word is said exactly once, whichever the language.
    for n, prompt in enumerate(mixed_corpus(MANY, unit).prompts):
        place = [w[2:] for w in words(prompt.text)]
        assert place == [f"{n}s{s}w{w}" for s, count in enumerate([9, 20, 3, 17]) for w in range(count)]
        for language, text in said(prompt):
            first, last = ([int(x) for x in w[2:].partition("s")[2].split("w")] for w in (words(text)[0],
                                                                                          words(text)[-1]))  # fmt: skip
            if unit == "chunk":
                assert first[1] % CHUNK == 0
                assert (last[1] + 1) % CHUNK == 0 or last[1] + 1 == [9, 20, 3, 17][last[0]]
            else:
                assert first[1] == 0
                assert text.endswith(".")
            assert language in LANGUAGES


@pytest.mark.parametrize(("unit", "units"), [("document", 60), ("sentence", 240), ("chunk", 60 * 9)])
def test_languages_are_drawn_uniformly_english_included(unit, units):
    counts = Counter()
    for prompt in mixed_corpus(MANY, unit).prompts:
        for language, text in said(prompt):
            spans = words(text)
            starts = {"document": "s0w0", "sentence": "w0", "chunk": ""}[unit]
            counts[language] += sum(w.endswith(starts) and (unit != "chunk" or int(w.split("w")[-1]) % CHUNK == 0)
                                    for w in spans)  # fmt: skip
    assert sum(counts.values()) == units
    low, high = binom.interval(0.9999, units, 0.2)
    assert all(low <= counts[g] <= high for g in LANGUAGES)


def test_one_language_is_the_corpus_itself():
    for unit in ("document", "sentence", "chunk", "unmixed"):
        made = mixed_corpus(MANY, unit, languages=["en"])
        assert made.languages == ("en",)
        assert [p.text for p in made.prompts] == [p.text.replace("\n", " ") for p in MANY.of("en")]
        assert all(len(p.segments) == 1 for p in made.prompts)


@pytest.mark.parametrize("documents", [60, 63])
def test_unmixed_documents_have_one_language_each_and_every_language_equally_many(documents):
    made = mixed_corpus(corpus([[3]] * documents), "unmixed")
    counts = Counter(p.segments[0].language for p in made.prompts)
    assert all(p.covariates["switches"] == 0 for p in made.prompts)
    assert set(counts.values()) <= {documents // 5, documents // 5 + 1}
    assert made.digest() != mixed_corpus(corpus([[3]] * documents), "unmixed", seed=1).digest()


def test_longer_runs_switch_less_often_in_the_same_documents():
    switches = [sum(p.covariates["switches"] for p in mixed_corpus(MANY, "chunk", run=run).prompts)
                for run in (1, 2, 4)]  # fmt: skip
    expected = [60 * 0.8 * n for n in (8, 4, 2)]  # seams of runs in nine chunks, four in five with another language
    assert all(abs(a - b) < 0.2 * b for a, b in zip(switches, expected, strict=True))
    for prompt in mixed_corpus(MANY, "chunk", run=4).prompts:
        assert len(words(prompt.text)) == 49


def test_a_smaller_corpus_is_mixed_as_the_beginning_of_a_larger_one():
    few, many = (mixed_corpus(PromptSet("c", MANY.select(limit=n).prompts), "sentence") for n in (10, 60))
    assert few.prompts == many.prompts[:10]
    assert few.digest() == mixed_corpus(MANY.select(limit=10), "sentence").digest()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_translations_of_any_length_are_cut_at_the_same_shares(of_first, of_second, seed):
    prompts = corpus([[of_first]], ["en"]).prompts + corpus([[of_second]], ["fr"]).prompts
    made = mixed_corpus(PromptSet("c", prompts), "chunk", seed=seed)
    for language, text in said(made.prompts[0]):
        count = {"en": of_first, "fr": of_second}[language]
        shown = [int(w.split("w")[1]) for w in words(text)]
        # Both ends of a part lie at a seam: a multiple of eight words of the first language, at the same share; and so
        # does what an empty chunk of the other language leaves out.
        jumps = [n for a, b in pairwise(shown) if b != a + 1 for n in (a + 1, b)]
        assert jumps == sorted(jumps)
        shares = {round(count * min(CHUNK * k, of_first) / of_first) for k in range(of_first // CHUNK + 2)}
        assert {shown[0], shown[-1] + 1, *jumps} <= shares


def test_a_sentence_is_never_drawn_away():
    lengths = {"en": 24, "fr": 1, "de": 2}  # the third chunk of French and the second of German are empty
    prompts = [p for g, n in lengths.items() for p in corpus([[n]] * 300, [g]).prompts]
    assert all(words(p.text) for p in mixed_corpus(PromptSet("c", tuple(prompts)), "chunk").prompts)


def test_chinese_is_cut_by_characters_and_joined_without_spaces():
    zh = "他今天早上很早就去学校了。\n她也去了。"
    en = "This morning he went to school very early, long before everyone else.\nShe went too."
    both = PromptSet("c", (Prompt("a", "zh", zh), Prompt("a", "en", en)))
    assert mixed_corpus(both, "chunk", languages=["zh"]).prompts[0].text == zh.replace("\n", "")
    seen = set()
    for seed in range(20):
        prompt = mixed_corpus(both, "chunk", seed=seed).prompts[0]
        seen |= {text for language, text in said(prompt) if language == "zh"}
        for language, text in said(prompt):
            assert text in {"zh": zh.replace("\n", ""), "en": en.replace("\n", " ")}[language]
    assert {"他今天早上很早就", "去学校了。"} <= seen
    assert len(word_spans("他今天早上很早就")) == CHUNK


def test_opening_marks_stay_with_their_word():
    en = "one two three four five six seven eight (nine) ten."
    fr = "un deux trois quatre cinq six sept huit « neuf » dix."
    both = PromptSet("c", (Prompt("a", "en", en), Prompt("a", "fr", fr)))
    parts = {text for seed in range(20) for _, text in said(mixed_corpus(both, "chunk", seed=seed).prompts[0])}
    assert {"one two three four five six seven eight", "(nine) ten."} <= parts


def test_documents_of_different_length_are_refused_by_name():
    prompts = (*corpus([[3, 3], [3]], ["en"]).prompts, *corpus([[3, 3], [3, 3]], ["fr"]).prompts)
    with pytest.raises(BabelScopeError, match="item 'd1' has 2 sentences in 'fr', but 1 in 'en'"):
        mixed_corpus(PromptSet("c", prompts), "sentence")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "word"}, "no unit called 'word'"),
        ({"unit": "sentence", "languages": ["en", "ru"]}, "'ru'"),
        ({"unit": "sentence", "run": 0}, "run of 0"),
        ({"unit": "document", "run": 2}, "run of 2"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(BabelScopeError, match=message):
        mixed_corpus(MANY, **arguments)


def test_plain_text_is_read_a_paragraph_an_item_and_the_result_read_back(tmp_path):
    for language in ("en", "fr"):
        text = "\n\n".join(p.text for p in corpus([[9, 3], [4]], [language]).prompts)
        (tmp_path / f"c.{language}.txt").write_text(f"\n{text}\n\n\n", "utf-8")
    read, _ = load_prompts(tmp_path / "c.{language}.txt", mapping="key=row text=text")
    assert [p.text for p in read.prompts] == [p.text for p in corpus([[9, 3], [4]], ["en", "fr"]).prompts]
    made = mixed_corpus(read, "sentence")
    write_prompts(made, tmp_path / "mixed.jsonl")
    assert load_prompts(tmp_path / "mixed.jsonl")[0].prompts == made.prompts


def test_texts_of_unequal_length_are_refused(tmp_path):
    (tmp_path / "en.txt").write_text("a.\n\nb.\n", "utf-8")
    (tmp_path / "fr.txt").write_text("a.\n", "utf-8")
    with pytest.raises(BabelScopeError, match="1 of 2 items missing"):
        load_prompts(tmp_path / "{language}.txt", mapping="key=row text=text")
