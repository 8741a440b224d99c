"""What is wrong with a researcher's files, gathered so that one run reports all of it."""

from dataclasses import dataclass, field

from babelscope.errors import BabelScopeError

# A file with one systematic defect has it in every row; ten rows show the pattern.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem: where (file and row), what, and what to do about it."""

    where: str
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Problems (which end the loading) and notes (which do not), in the order found."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, where: str, problem: str, remedy: str) -> None:
        """Keep a problem for `refuse`."""
        self.problems.append(Finding(where, problem, remedy))

    def note(self, text: str) -> None:
        """Keep a note; the same text is kept once."""
        if text not in self.notes:
            self.notes.append(text)

    def refuse(self) -> None:
        """Raise one error that shows the problems found so far, ten at most.

        Raises
        ------
        BabelScopeError
            If there is any problem.
        """
        if not self.problems:
            return
        first = self.problems[0]
        if len(self.problems) == 1:
            raise BabelScopeError(f"{first.where}: {first.problem}", first.remedy)
        shown = self.problems[:SHOWN]
        heading = f"{len(self.problems)} problems" + (f", the first {SHOWN}" if len(self.problems) > SHOWN else "")
        if len({f.remedy for f in self.problems}) == 1:
            lines = [f"  {f.where}: {f.problem}" for f in shown]
            raise BabelScopeError("\n".join([f"{heading}:", *lines]), first.remedy)
        lines = [f"  {f.where}: {f.problem} ({f.remedy})" for f in shown]
        raise BabelScopeError("\n".join([f"{heading}:", *lines]), f"start with the first: {first.remedy}")
