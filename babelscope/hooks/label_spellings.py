"""The token of a label by its spelling: bare, behind a space, or whichever comes last."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from babelscope.schema import SPELLINGS
from babelscope.schema.captured import NO_OPTION, NOT_ONE_TOKEN, UNKNOWN_TOKEN

# How tokenizers write a space at the start of a token: SentencePiece, byte-level BPE, and those that write it out.
_SPACES = ("\u2581", "\u0120", " ")


def spelled_tokens(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], n_options: int) -> NDArray[np.int32]:
    """Token ids of labels in every spelling.

    SentencePiece puts a space before every text, so that there the encoded letter is the spelling with a space, and
    the bare one is found in the vocabulary alone; in byte-level BPE the encoded letter is the bare one. What the
    encoded letter ends in (`last`) is therefore the one or the other, by the tokenizer, and can be a token that ends
    texts.

    Parameters
    ----------
    labels : sequence of str
    n_options : int
        At least as many.

    Returns
    -------
    ndarray of int32
        (option, spelling): a token, or `NO_OPTION`, `NOT_ONE_TOKEN`, `UNKNOWN_TOKEN`.
    """
    found = np.full((n_options, len(SPELLINGS)), NO_OPTION, np.int32)
    for option, label in enumerate(labels):
        written = _single(tokenizer, label), _single(tokenizer, " " + label)
        whole = token_written(tokenizer, label)
        bare = [i for i in (*written, whole) if i is not None and not _starts_with_space(tokenizer, i)]
        spaced = [i for i in reversed(written) if i is not None and _starts_with_space(tokenizer, i)]
        ended = list(tokenizer(label, verbose=False)["input_ids"])[-1:]
        for spelling, ids in enumerate((bare, spaced, ended)):
            token = ids[0] if ids else NOT_ONE_TOKEN
            found[option, spelling] = UNKNOWN_TOKEN if token == tokenizer.unk_token_id else token
    return found


def token_written(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """Id of the token that is written exactly so; None where there is none."""
    # `get_vocab` would tell as well, by a dictionary of all tokens that it makes anew each time. The identifier of an
    # unknown token may be that of <unk>, or in ByT5 one that no token has.
    found = tokenizer.convert_tokens_to_ids(text)
    if not isinstance(found, int) or found >= len(tokenizer) or tokenizer.convert_ids_to_tokens(found) != text:
        return None
    return found


def _single(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[0] if len(ids) == 1 else None


def _starts_with_space(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    written = tokenizer.convert_ids_to_tokens(token)
    return (written.decode("utf-8", "replace") if isinstance(written, bytes) else str(written)).startswith(_SPACES)
