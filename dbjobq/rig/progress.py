"""Progress of a long command: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["Progress", "shown"]

LINE_EVERY: Final = 1.0
"""Seconds between two plain lines."""


class Progress(Protocol):
    """Shows progress somewhere."""

    def say(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def update(self, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` is done, with a note."""
        ...


@contextmanager
def shown() -> Generator[Progress]:
    """Show progress until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def update(self, done: int, total: int, note: str) -> None:
        if time.monotonic() - self._said_at >= LINE_EVERY:
            self._said_at = time.monotonic()
            self.say(f"  {done:,} of {total:,}, {note}")


class _Bar:
    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task = bar.add_task("", note="", visible=False)

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def update(self, done: int, total: int, note: str) -> None:
        self._bar.update(self._task, completed=done, total=total, note=note, visible=done < total)
