"""One item in two languages or more, and what a token of it attends to, head by head."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Weights are drawn as shades: three digits are more than an eye tells apart.
DIGITS = 3


@dataclass(frozen=True, slots=True)
class AttendedText:
    """A prompt cut into its tokens.

    Parameters
    ----------
    language : str
    pieces : tuple of str
        Text of each token, in order; characters between tokens belong to the one before.
    weights : ndarray of float32
        (layer, head, token): attention from the last token, which sums to 1 over tokens.
    """

    language: str
    pieces: tuple[str, ...]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AttentionView:
    """One item, with its text in each language.

    Parameters
    ----------
    item : str
    layers : tuple of int
    texts : tuple of AttendedText
    """

    item: str
    layers: tuple[int, ...]
    texts: tuple[AttendedText, ...]


def view_json(views: Sequence[AttentionView]) -> str:
    """The views as JSON that cannot end the script element it stands in."""
    found = [
        {
            "item": view.item,
            "layers": list(view.layers),
            "texts": [
                {"language": t.language, "pieces": list(t.pieces), "weights": _rounded(t.weights)} for t in view.texts
            ],
        }
        for view in views
    ]
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(weights: NDArray[np.float32]) -> Any:
    """Nested lists of few digits; those of a float32 would be written with all that its double has."""
    return np.round(weights.astype(np.float64), DIGITS).tolist()


def pieces_of(text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[str], list[int]]:
    """A text cut where tokens begin, and the piece of each token.

    Tokens of one character (bytes of a letter) share a piece; special tokens, whose span is empty, have one of their
    own.

    Parameters
    ----------
    text : str
    spans : sequence of (int, int)
        Character span of each token.

    Returns
    -------
    tuple
        Pieces in order, which joined are the text (special tokens are empty pieces), and for each token the index of
        its piece.
    """
    pieces: list[str] = []
    of_token: list[int] = []
    begins: list[int | None] = []
    for start, stop in spans:
        if stop <= start:
            begins.append(None)
        elif not begins or begins[-1] is None or start > begins[-1]:
            begins.append(start)
        of_token.append(len(begins) - 1)
    known = [b for b in begins if b is not None]
    for k, begin in enumerate(begins):
        if begin is None:
            pieces.append("")
            continue
        later = [b for b in begins[k + 1 :] if b is not None]
        start = 0 if begin == known[0] else begin
        pieces.append(text[start : later[0] if later else len(text)])
    return pieces, of_token
