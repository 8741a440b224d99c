"""One problem and one hint: the only kind of error a user is meant to read."""

import difflib
from collections.abc import Iterable


class BabelScopeError(Exception):
    """A problem the user can fix.

    Parameters
    ----------
    problem : str
        What is wrong, naming the file, field or row and what was expected.
    hint : str
        The next thing to type or to change.
    exit_code : int
        What a command that ends with it exits with: 128 + the number of the signal that stopped it, else 1.
    """

    def __init__(self, problem: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return printable(f"{self.problem}\n  hint: {self.hint}" if self.hint else self.problem)


def printable(text: str) -> str:
    """A text with its control characters escaped, since some of them would rewrite or reorder what a terminal shows.

    Line ends stay, and so do the joiners that Persian and Hindi are written with.
    """
    return "".join(c if c.isprintable() or c in "\n\t \u200c\u200d" else ascii(c)[1:-1] for c in text)


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str = "") -> BabelScopeError:
    """The error for a name that does not exist, with the nearest existing ones as the hint."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"
    if listing:
        hint += f" (list them: {listing})"
    return BabelScopeError(f"there is no {kind} called {name!r}", hint)
