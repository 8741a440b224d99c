"""A position: a rule that picks tokens from the attention mask, never a column index."""

from dataclasses import dataclass

from babelscope.errors import BabelScopeError, unknown_name

POSITION_KINDS = {
    "last": "the last real token",
    "first": "the first real token",
    "mean": "mean over all real tokens",
    "weighted-mean": "mean over all real tokens, each weighted by its place among them (1 to n)",
    "all": "every real token, one row each",
    "segment": "mean over the tokens of a segment, as segment:question",
    "answer": "where the answer is: mean over the tokens of the segment `answer`, else the last token",
    "words": "every word of the text, or of a segment as words:question: mean over its tokens, one row each",
}

# What is kept beside each row of a ragged position.
_COORDINATES = {"all": ("token_id", "special"), "words": ("char_start", "char_stop")}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A rule for picking tokens. `str(position)` and `Position.parse` are inverse.

    Parameters
    ----------
    kind : str
        A key of `POSITION_KINDS`.
    segment : str
        Name of the segment: always for kind `segment`, if wanted for kind `words`.
    """

    kind: str
    segment: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.segment}" if self.segment else self.kind

    @property
    def ragged(self) -> bool:
        """Whether an item gives one row per token or word rather than one row."""
        return self.kind in _COORDINATES

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of what is kept beside each row: the token's id and whether it is special, or a word's characters."""
        return _COORDINATES.get(self.kind, ())

    @property
    def row_axis(self) -> str:
        """What one row belongs to: item, token or word."""
        return {"all": "token", "words": "word"}.get(self.kind, "item")

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `last`, `segment:NAME` and the like; raise BabelScopeError otherwise."""
        kind, colon, segment = text.strip().partition(":")
        if kind not in POSITION_KINDS:
            raise unknown_name("position", text, POSITION_KINDS)
        named = bool(segment) if colon else kind != "segment"
        if not named or (segment and kind not in ("segment", "words")):
            others = ", ".join(k for k in POSITION_KINDS if k != "segment")
            raise BabelScopeError(f"position {text!r} is incomplete", f"write segment:question, {others}")
        return cls(kind, segment)
