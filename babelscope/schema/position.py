"""A position: a rule that picks tokens from the attention mask, never a column index."""

from dataclasses import dataclass

from babelscope.errors import BabelScopeError, unknown_name

POSITION_KINDS = {
    "last": "the last real token",
    "first": "the first real token",
    "mean": "mean over all real tokens",
    "all": "every real token, one row each",
    "segment": "mean over the tokens of a segment, as segment:question",
}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A rule for picking tokens. `str(position)` and `Position.parse` are inverse.

    Parameters
    ----------
    kind : str
        A key of `POSITION_KINDS`.
    segment : str
        Name of the segment, for kind `segment` only.
    """

    kind: str
    segment: str = ""

    def __str__(self) -> str:
        return f"segment:{self.segment}" if self.kind == "segment" else self.kind

    @property
    def ragged(self) -> bool:
        """Whether an item gives one row per token rather than one row."""
        return self.kind == "all"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `last`, `first`, `mean`, `all` or `segment:NAME`; raise BabelScopeError otherwise."""
        kind, colon, segment = text.strip().partition(":")
        if kind not in POSITION_KINDS:
            raise unknown_name("position", text, POSITION_KINDS)
        if (kind == "segment") != bool(segment) or (colon and not segment):
            raise BabelScopeError(
                f"position {text!r} is incomplete", "write segment:question, last, first, mean or all"
            )
        return cls(kind, segment)
