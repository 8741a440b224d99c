"""What a backend yields and the store keeps: the rows of one block of items in one language."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from babelscope.schema.position import Position

# How an option's label may be spelled, in the order of the axis `spelling`. Which of the first two follows a prompt
# depends on whether its last character is a space, and on the tokenizer.
SPELLINGS = {
    "bare": "the one token of the label without a space before it",
    "spaced": "the one token of the label with a space before it",
    "last": "the last token of the encoded label, whichever that is (the code of arXiv:2406.16135)",
}

# What stands for the token of a label that has none.
NO_OPTION, NOT_ONE_TOKEN, UNKNOWN_TOKEN = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one (site, position).

    Parameters
    ----------
    values : ndarray
        Shape (layer, item, *unit), or (layer, token, *unit) for ragged positions. Layers are those of
        the plan in plan order (one for sites without layers). bfloat16 travels as `ml_dtypes.bfloat16`.
    row_splits : ndarray of int64 or None
        For ragged positions, (item + 1,): rows of item i are `row_splits[i]:row_splits[i + 1]`.
    coordinates : mapping
        For ragged positions, `Position.coordinates` -> (row,): `token_id` (int32) and `special` (uint8), or
        `char_start` and `char_stop` (int32).
    """

    values: NDArray[np.generic]
    row_splits: NDArray[np.int64] | None = None
    coordinates: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """How the model answered the items of a block; each array has one row per item of `Block.items`.

    Parameters
    ----------
    scores : ndarray of float64
        (item, option): log-probability of the option's label as next token, the better of the label
        with and without a leading space; NaN where the item has fewer options or none.
    choice : ndarray of int64
        (item,): index of the best option; -1 where the item has no options.
    correct : ndarray of float64
        (item,): 1.0, 0.0, or NaN where there is no gold option.
    undefined : mapping
        Row -> reason, for items whose options cannot be told apart by one token; their scores are NaN.
    text_scores : ndarray of float64 or None
        (item, option): log-probability of all tokens of the option's text as continuation of the prompt, the better
        of the text with and without a leading space; NaN where there is none, or where it leaves the context.
    text_tokens : ndarray of int64 or None
        (item, option): how many tokens these are; 0 where the score is NaN.
    continuation : tuple of str or None
        What the model wrote, item by item.
    label_scores : ndarray of float32 or None
        (item, option, spelling): log-probability of the label as next token, spelled in each way of `SPELLINGS`. NaN
        for all options of an item where `spelling_problem` has a reason.
    label_tokens : ndarray of int32 or None
        (item, option, spelling): the token scored, or `NO_OPTION`, `NOT_ONE_TOKEN`, `UNKNOWN_TOKEN`.
    """

    scores: NDArray[np.float64]
    choice: NDArray[np.int64]
    correct: NDArray[np.float64]
    undefined: Mapping[int, str] = field(default_factory=dict)
    text_scores: NDArray[np.float64] | None = None
    text_tokens: NDArray[np.int64] | None = None
    continuation: tuple[str, ...] | None = None
    label_scores: NDArray[np.float32] | None = None
    label_tokens: NDArray[np.int32] | None = None


def spelling_problem(tokens: NDArray[np.generic]) -> str:
    """Why the options of an item cannot be scored by these tokens of their labels, (option,); "" where they can."""
    found = [int(token) for token in tokens if token != NO_OPTION]
    if NOT_ONE_TOKEN in found:
        return "a label is not one token in this spelling"
    if UNKNOWN_TOKEN in found:
        return "a label is the unknown token in this spelling"
    if len(set(found)) < len(found):
        return "labels share a token in this spelling"
    return ""


@dataclass(frozen=True, slots=True)
class Block:
    """Captured rows of the items `items` (indices into the plan) in one language.

    Items that could not be captured are absent from `items` and named in `failed` with the reason.
    """

    language: str
    index: int
    items: NDArray[np.int64]
    rows: Mapping[tuple[str, Position], Rows]
    n_tokens: NDArray[np.int64]
    last_token: tuple[str, ...]
    answers: Answers | None = None
    failed: Mapping[int, str] = field(default_factory=dict)
    law_errors: Mapping[str, float] = field(default_factory=dict)
