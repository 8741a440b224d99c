"""The data card counts words by hand, and flags what can make a similarity look like thought."""

from pathlib import Path

import numpy as np
import pytest

import babelscope as bs
from babelscope.activations_store import ActivationStore
from babelscope.reports.card import Card, _read, data_card
from babelscope.schema import Prompt
from tests.analyses.planted import activations, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    values = {"resid.post": activations(np.random.default_rng(0), 3, 8, 6, shared=1.0)[None]}
    return write_store(tmp_path_factory.mktemp("card") / "run.acts", values)


@pytest.fixture(scope="module")
def card(store: ActivationStore) -> Card:
    return data_card(store)


def test_there_is_a_row_for_each_language(card: Card, store: ActivationStore) -> None:
    assert card.table["language"].tolist() == list(store.languages)
    assert (card.table["n"] == 8).all()
    assert np.isnan(card.table["word_overlap"].iloc[0])  # the first language beside itself says nothing


def test_word_overlap_is_that_of_matched_items_beside_other_items(card: Card, store: ActivationStore) -> None:
    first, other = ([p.text.lower().split() for p in store.prompts.of(code)] for code in store.languages[:2])

    def overlap(a: list[str], b: list[str]) -> float:
        return len({*a} & {*b}) / len({*a} | {*b})

    row = card.table.iloc[1]
    assert row["word_overlap"] == pytest.approx(_plain_mean(overlap, other, first))
    assert row["word_overlap_null"] == pytest.approx(_plain_mean(overlap, other, first[1:] + first[:1]))


def _plain_mean(score, a: list[list[str]], b: list[list[str]]) -> float:
    return sum(score(_words(x), _words(y)) for x, y in zip(a, b, strict=True)) / len(a)


def _words(tokens: list[str]) -> list[str]:
    return [w for token in tokens for w in "".join(c if c.isalnum() else " " for c in token).split()]


def test_few_items_and_one_last_token_are_flagged(card: Card) -> None:
    text = " ".join(card.flags)
    assert "Only 8 items in a language" in text
    assert "end in the same token" in text


def test_a_text_that_equals_the_first_language_is_flagged(tmp_path: Path) -> None:
    values = {"resid.post": activations(np.random.default_rng(0), 3, 8, 6, shared=1.0)[None]}
    same = write_store(tmp_path / "same.acts", values, text="the same {item}")
    assert any("equal those of the first language" in flag for flag in data_card(same).flags)


def test_a_language_that_is_not_captured_yet_is_undefined_and_no_obstacle(tmp_path: Path) -> None:
    unfinished = bs.capture(
        tmp_path / "part.acts", model="organism", prompts="knowledge", languages=["en", "zh"], limit=4,
        sites=["resid.post@1"], self_test=False, part="1/3", block_items=4,
    )  # fmt: skip
    card = data_card(unfinished)
    rows = card.table.set_index("n")
    assert list(rows.index) == [4, 0]
    assert rows.loc[0, ["tokens", "words", "tokens_per_word"]].isna().all()
    assert rows.loc[4, "tokens_per_word"] > 1
    assert "The capture is unfinished: 1 of 2 shards" in " ".join(card.flags)


def test_a_token_of_bytes_is_read_as_the_letter_that_texts_end_in() -> None:
    texts = [Prompt("a", "zh", "\u7b54\u6848\uff1a"), Prompt("b", "zh", "\u54ea\uff1f\u7b54\u6848\uff1a ")]
    assert _read("\u00ef\u00bc\u013c", texts) == "\uff1a"
    assert _read("\u2581\u6848\uff1a", texts) == "\u2581\u6848\uff1a"  # spelled as it is read
    assert _read("[SEP]", texts) == "[SEP]"  # no byte of a letter beyond ASCII is written in ASCII
    assert _read("x", []) == "x"


def test_a_prompt_without_words_counts_nowhere_and_is_no_zero(tmp_path: Path) -> None:
    values = {"resid.post": activations(np.random.default_rng(0), 3, 8, 6, shared=1.0)[None]}
    empty = data_card(write_store(tmp_path / "signs.acts", values, text="?!")).table
    assert empty[["word_overlap", "word_overlap_null", "tokens_per_word", "template"]].isna().all(axis=None)
