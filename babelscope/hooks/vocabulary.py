"""What the tokens of a vocabulary stand for: the beginning of a word, the script they are written in, and nothing."""

from collections.abc import Callable

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from babelscope.datasets.scripts import main_script
from babelscope.errors import BabelScopeError
from babelscope.hooks.checkpoints import check_source, reported
from babelscope.hooks.label_spellings import token_written

# Pieces of a character; tokens that no text is made of.
FRAGMENT, SPECIAL = "byte fragment", "special"

TRIES = 64


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> frozenset[int]:
    """Tokens that a text begins with, with and without a space before it; empty for a text of nothing but spaces.

    A token that is nothing but a space says nothing of the text, so the one behind it counts. Characters outside the
    vocabulary may be split into bytes: then the first token is a piece of the first character.
    """
    text = text.strip()
    if not text:
        return frozenset()
    whole = token_written(tokenizer, text)  # where every text gets a space, encoding never yields the bare word
    found = set() if whole is None else {whole}
    for spelled in (text, " " + text):
        ids: list[int] = tokenizer(spelled, add_special_tokens=False, verbose=False)["input_ids"]
        found |= set(next(([i] for i in ids if not _is_space(tokenizer, i)), []))
    return frozenset(found - {tokenizer.unk_token_id})


def _is_space(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    text = str(tokenizer.decode([token]))
    # Some decoders drop the space at the beginning of a text, and with it the whole of such a token.
    return not text.strip() and token not in tokenizer.all_special_ids


def token_scripts(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[str, ...]:
    """Unicode script of every token: that of most of its letters, or `NO_SCRIPT`, `FRAGMENT` or `SPECIAL`.

    Parameters
    ----------
    size : int
        Tokens that the unembedding knows; those beyond the tokenizer's are special.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    known = min(size, len(tokenizer))
    texts = tokenizer.batch_decode([[i] for i in range(known)], clean_up_tokenization_spaces=False)
    scripts = [SPECIAL if i in special else _script(text) for i, text in enumerate(texts)]
    return (*scripts, *[SPECIAL] * (size - known))


def _script(token: str) -> str:
    return FRAGMENT if "\ufffd" in token else main_script([token])


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id, without the model; raises as `load_model` does."""
    check_source(source)
    with reported(source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    return tokenizer


def random_tokens(tokenizer: PreTrainedTokenizerBase) -> Callable[[str, np.random.Generator], str]:
    """Random tokens in the place of a word: a function of the word and a random generator.

    Tokens are drawn uniformly from those that are a text of their own: no special ones, no pieces of characters, no
    spaces and control characters. As many are drawn as the word has with a space before it, again if their text would
    be split into another number, at most `TRIES` times (then the last text is taken as it is).
    """
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    usable = np.array([i for i, t in enumerate(texts) if i not in special and _is_text(t)])
    if not len(usable):
        raise BabelScopeError("no token of this vocabulary is a text of its own", "leave out --vocabulary")

    def count(text: str) -> int:
        return len(tokenizer(" " + text, add_special_tokens=False, verbose=False)["input_ids"])

    def drawn(word: str, rng: np.random.Generator) -> str:
        wanted, text = count(word), ""
        for _ in range(TRIES):
            found = tokenizer.decode(rng.choice(usable, size=wanted).tolist(), clean_up_tokenization_spaces=False)
            text = str(found).strip() or text
            if _is_text(text) and text.casefold() != word.casefold() and count(text) == wanted:
                break
        return text

    return drawn


def _is_text(token: str) -> bool:
    return bool(token.strip()) and token.isprintable() and "\ufffd" not in token
