"""The log and the progress bar on stderr; stdout is the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from babelscope.errors import printable

if TYPE_CHECKING:
    from babelscope.workflows import Progress as Report

err = Console(stderr=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="dim")


@contextmanager
def bar(*, hidden: bool = False) -> Iterator["Report"]:
    """A callback that draws one bar per kind of work, with rate and remaining time, or nothing."""
    what = TextColumn("{task.description:<18}", markup=False)
    columns = (what, BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    drawn = Progress(*columns, console=err, disable=hidden)
    tasks: dict[str, TaskID] = {}

    def report(done: int, total: int, what: str) -> None:
        kind = what.split()[0]
        if not tasks:
            drawn.start()  # not before: what fails at once leaves no empty line
        if kind not in tasks:
            tasks[kind] = drawn.add_task(kind, total=total)
        drawn.update(tasks[kind], completed=done, total=total, description=printable(what[:18]))

    try:
        yield report
    finally:
        if tasks:
            drawn.stop()


def note(text: str) -> None:
    """A line of the log."""
    err.print(text, style="dim", markup=False, highlight=False)
