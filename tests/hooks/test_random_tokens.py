"""Random tokens in the place of words: of a vocabulary, as many as the word has, and texts of their own."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from babelscope.errors import BabelScopeError
from babelscope.hooks.vocabulary import load_tokenizer, random_tokens
from babelscope.workflows import model_path


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path("organism"))


WORDS = ("house", "Elefant", "слон", "大象", "mathematics", "Firdausi", "a")


def tokens(tokenizer, text):
    return tokenizer(" " + text, add_special_tokens=False)["input_ids"]


def test_a_word_is_replaced_by_as_many_tokens(tokenizer):
    drawn, rng = random_tokens(tokenizer), np.random.default_rng(0)
    same = [len(tokens(tokenizer, drawn(w, rng))) == len(tokens(tokenizer, w)) for w in WORDS for _ in range(40)]
    assert np.mean(same) > 0.99


def test_replacements_are_texts_without_special_tokens_and_pieces_of_characters(tokenizer):
    drawn, rng = random_tokens(tokenizer), np.random.default_rng(1)
    found = [drawn(w, rng) for w in WORDS for _ in range(40)]
    assert all(t.strip() == t and t.isprintable() and "\ufffd" not in t for t in found)
    assert not any(s in t for t in found for s in tokenizer.all_special_tokens)
    assert len(set(found)) > 0.8 * len(found)
    assert len({t[:1] for t in found}) > 60  # from the whole vocabulary, whatever the script


def test_equal_random_numbers_give_equal_tokens(tokenizer):
    first, second = ([random_tokens(tokenizer)(w, np.random.default_rng(5)) for w in WORDS] for _ in range(2))
    assert first == second


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(BabelScopeError, match="does not exist"):
        load_tokenizer(str(tmp_path / "none"))
    with pytest.raises(BabelScopeError, match="no model folder"):
        load_tokenizer(str(tmp_path))
