"""Where a job is at this moment, as one line for a log: names and places of code, never values."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from itertools import takewhile
from types import FrameType
from typing import Any, Final

__all__ = ["of_task", "of_thread"]

FRAMES: Final = 10
"""The innermost ones are named."""
DEEPEST: Final = 1_000
"""Coroutines that are followed: a chain may be a ring where somebody is clever."""
_OURS: Final = ("dbjobq.attempt.", "dbjobq.runtime.")
"""Modules that call handlers: what called them says nothing of the job."""


def of_thread(ident: int | None) -> str:
    """Return the Python stack of a thread, innermost first; empty if it has ended."""
    return _line(_outwards(None if ident is None else sys._current_frames().get(ident)))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented


def of_task(task: asyncio.Task[Any]) -> str:
    """Return the coroutines in which a task waits, innermost first; empty while it runs."""
    chain: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(chain) < DEEPEST:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:  # a future, or an iterator written in C
            break
        chain.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return _line(reversed(chain))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _line(frames: Iterable[FrameType]) -> str:
    inner = list(frames)
    theirs = list(takewhile(lambda f: not str(f.f_globals.get("__name__")).startswith(_OURS), inner)) or inner
    return " < ".join(f"{f.f_code.co_qualname} ({f.f_code.co_filename}:{f.f_lineno})" for f in theirs[:FRAMES])
