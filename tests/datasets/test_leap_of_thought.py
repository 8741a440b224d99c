"""Rules about kinds and statements about things: labels by a solver of their own, no way around the knowledge."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from babelscope.datasets.audit import audit
from babelscope.datasets.generators.leap_of_thought import TAXONOMIES, LeapOfThought, members
from babelscope.datasets.label_shortcuts import label_accuracies
from babelscope.datasets.load import load_prompts
from babelscope.datasets.published_statements import write_published
from babelscope.datasets.text_units import numbers, whole_sentences
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.errors import BabelScopeError
from tests.datasets.heuristics import chance_margin

FACTS = Path(__file__).parents[2] / "babelscope" / "datasets" / "facts"
ROUND = len(TAXONOMIES) * 4


@pytest.fixture(scope="module")
def english():
    return LeapOfThought(items=100 * ROUND, split="train").generate(["en"])


def table(name):
    with (FACTS / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def kinds_of_things():
    """What each thing is, in English, read from the tables alone."""
    english_ = {f"{t}:{row['key']}": row["en"] for t in ("animals", "classes", "countries", "continents")
                for row in table(t)}  # fmt: skip
    found = {}
    for row in table("relations"):
        if row["relation"] in ("animal_class", "continent"):
            found[english_[row["subject"]]] = {english_[row["object"]]}
    for kinds in found.values():
        if kinds & {"mammals", "birds", "fish", "reptiles", "amphibians"}:
            kinds.add("vertebrates")
        elif "insects" in kinds:
            kinds.add("invertebrates")
    return found


def solve(prompt, kinds):
    """Labels that the rules leave to the statement: exactly one, unless they say nothing or both."""
    question = prompt.segment("question")
    name, said = re.search("“(.+)”", question)[1], " not " not in question
    labels = set()
    for rule in whole_sentences(prompt.segment("context")):
        kind = re.search("“(.+)”", rule)[1]
        if kind in kinds[name] and numbers(rule)[-1:] == numbers(question)[-1:]:
            labels.add(int(rule.startswith("Every") == said))
    return labels


def test_the_rules_and_what_is_known_give_every_statement_its_label(english):
    kinds = kinds_of_things()
    assert [solve(p, kinds) for p in english.prompts] == [{p.gold} for p in english.prompts]


def test_the_context_does_not_say_what_the_thing_is(english):
    for p in english.prompts:
        name = re.search("“(.+)”", p.segment("question"))[1]
        assert f"“{name}”" not in p.segment("context")


def test_labels_and_negation_are_balanced_in_each_taxonomy(english):
    counts = Counter((p.covariates["rule"], p.gold, p.covariates["negated"]) for p in english.prompts)
    assert counts == {(t, g, n): 100 for t in TAXONOMIES for g in (0, 1) for n in (False, True)}
    assert {(p.covariates["rule"], p.covariates["depth"]) for p in english.prompts} == {
        ("class", 1), ("vertebrates", 2), ("continent", 1)
    }  # fmt: skip


def test_kinds_numbers_and_forms_of_rules_occur_equally_often():
    for problem in LeapOfThought(items=ROUND).problems():
        for part in range(3):
            assert set(Counter(rule[part] for rule in problem.rules).values()) == {2}


def test_every_thing_has_one_kind_in_a_taxonomy():
    for taxonomy in TAXONOMIES:
        things = [t for kind in members(taxonomy).values() for t in kind]
        assert len(things) == len(set(things)) == (44 if taxonomy == "continent" else 24)


def test_the_first_number_of_the_rules_is_asked_half_of_the_time(english):
    first = sum(numbers(p.segment("question"))[-1] == numbers(p.segment("context"))[0] for p in english.prompts)
    low, high = binom.interval(0.999, len(english), 0.5)
    assert low <= first <= high


def test_no_shortcut_leaves_chance(english):
    found = audit(english)
    assert not found.flag.any()
    assert {"question_only", "context_only", "shared_words"} <= set(found.heuristic)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_gives_the_label_away_in_any_language(language):
    prompts = LeapOfThought(items=40 * ROUND, split="train", seed=3).generate([language]).prompts
    for heuristic, found in label_accuracies(prompts).items():
        assert abs(np.nanmean(found) - 0.5) < 1.2 * chance_margin(len(prompts) // 2), heuristic


def test_every_language_says_the_same_in_the_same_order():
    made = LeapOfThought(items=2 * ROUND).generate()
    assert made.languages == LANGUAGES
    for i, item in enumerate(made.items):
        rows = [made.of(g)[i] for g in LANGUAGES]
        assert {r.item for r in rows} == {item}
        assert len({(r.gold, tuple(sorted(r.covariates.items()))) for r in rows}) == 1
        said = [whole_sentences(r.segment("context")) for r in rows]
        assert {len(s) for s in said} == {4}
        assert all(wording(r.language).sentences(s) == r.segment("context") for r, s in zip(rows, said, strict=True))
        assert len({tuple(numbers(s)[0] for s in [*parts, r.segment("question")])
                    for r, parts in zip(rows, said, strict=True)}) == 1  # fmt: skip
        assert all(len(set(parts)) == 4 for parts in said)


def test_a_smaller_recipe_generates_a_prefix_and_splits_share_no_rules():
    few, many = (LeapOfThought(items=n).generate(["en"]) for n in (20, 60))
    assert few.prompts == many.prompts[:20]
    assert few.digest() != LeapOfThought(items=20, seed=1).generate(["en"]).digest()
    train, test = (LeapOfThought(items=600, split=split).problems() for split in ("train", "test"))
    assert {p.shown for p in train}.isdisjoint(p.shown for p in test)


def test_the_published_layout_is_read_back(tmp_path):
    made = LeapOfThought(items=ROUND).generate(["en", "fa", "zh", "fr"])
    write_published(made, "leap-of-thought", tmp_path / "{language}_dev.jsonl")
    again, notes = load_prompts(tmp_path / "{language}_dev.jsonl", mapping="leap-of-thought",
                                languages=["en", "fa", "zh", "fr"])  # fmt: skip
    assert notes == []
    for before, after in zip(made.prompts, again.prompts, strict=True):
        assert (after.language, after.gold, after.options) == (before.language, before.gold, before.options)
        assert (after.segment("context"), after.segment("question")) == (
            before.segment("context"), before.segment("question")
        )  # fmt: skip


@pytest.mark.parametrize("answer", ["true", "1", '"True"', "1.0"])
def test_answers_may_be_booleans_or_numbers(tmp_path, answer):
    line = f'{{"context": "C.", "phrase": "P.", "answer": {answer}, "metadata": {{"rules": ["C."]}}}}\n'
    (tmp_path / "en.jsonl").write_text(line, "utf-8")
    made, _ = load_prompts(tmp_path / "{language}.jsonl", mapping="leap-of-thought")
    assert (made.prompts[0].gold, made.prompts[0].answer) == (1, "true")


def test_an_answer_that_is_neither_is_refused(tmp_path):
    (tmp_path / "en.jsonl").write_text('{"context": "C.", "phrase": "P.", "answer": 2}\n', "utf-8")
    with pytest.raises(BabelScopeError, match="'answer' is 2, neither true nor false"):
        load_prompts(tmp_path / "{language}.jsonl", mapping="leap-of-thought")
