"""What the demo shows while it runs: a bar on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["Progress", "shown"]

LINE_EVERY: Final = 1.0
"""Seconds between two plain lines."""
RATE_OVER: Final = 1.0
"""Seconds over which the rate is taken."""


class Progress(Protocol):
    """Somewhere to show it."""

    def say(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def update(self, done: int, total: int) -> None:
        """Show how far it is."""
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

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:>5.0f} jobs/s"), TimeElapsedColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _Rate:
    """Jobs a second, of late."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int) -> float:
        now = time.monotonic()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_OVER:
            self._seen.popleft()
        (since, before) = self._seen[0]
        return (done - before) / (now - since) if now > since else 0.0


class _Lines:
    def __init__(self) -> None:
        self._rate = _Rate()
        self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def update(self, done: int, total: int) -> None:
        rate = self._rate.update(done)
        if time.monotonic() - self._said_at >= LINE_EVERY:
            self._said_at = time.monotonic()
            self.say(f"  {done:,} of {total:,} jobs, {rate:,.0f} jobs/s")


class _Bar:
    def __init__(self, bar: RichProgress) -> None:
        self._bar, self._rate = bar, _Rate()
        self._task = bar.add_task("", rate=0.0, visible=False)

    def say(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total, rate=self._rate.update(done), visible=done < total)
