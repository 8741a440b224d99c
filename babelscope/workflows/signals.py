"""How long work reports progress, and how it is asked to stop."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# (done, total, what is being worked on): the CLI draws a bar from it, a notebook may ignore it.
Progress = Callable[[int, int, str], None]

# A line for the log.
Note = Callable[[str], None]

SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def stop_requested() -> Iterator[Callable[[], int]]:
    """Number of the first SIGINT or SIGTERM, which asks to stop, or 0; the second one ends the process at once.

    h5py swallows exceptions raised inside its weak-reference callbacks, so a handler may only set a flag.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        # os.write, since print is not reentrant: the signal may come in the middle of drawing a bar.
        if asked:
            os.write(2, b"\nbabelscope: stopped at once; finished shards are kept\n")
            if sys.stderr.isatty():
                os.write(2, SHOW_CURSOR)  # the bar hides it, and nothing is cleaned up here
            os._exit(128 + number)  # an exception could be swallowed
        asked.append(number)
        os.write(2, b"\nstopping after this block (again: at once)\n")

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: the caller handles signals
        yield lambda: 0
        return
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises SystemExit, so that everything is cleaned up as after Ctrl-C.

    Where h5py swallows it, the work goes on, and the signal may be sent again.
    """

    def end(number: int, _: object) -> None:
        os.write(2, b"\nbabelscope: terminated; nothing half-written is kept\n")
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
