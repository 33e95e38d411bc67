"""A job that is cancelled while it runs."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

from dbjobq import JobContext, JobQueue, job

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SELDOM", "seconds_until_told"]

SELDOM: Final = 900.0
"""The lease of a worker whose heartbeats come so seldom that what is told within a minute is not told by them."""


def seconds_until_told(queue: JobQueue, kind: str, cancel: Callable[[str], bool]) -> float:
    """Enqueue a job for a worker that is there, cancel it when it runs; return how long it took to be told."""
    began, told = threading.Event(), threading.Event()

    @job
    def slow(ctx: JobContext) -> None:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.01)
        told.set()

    @job
    async def aslow() -> None:
        began.set()
        try:
            await asyncio.sleep(SELDOM)
        finally:
            told.set()

    job_id = queue.enqueue(slow if kind == "def" else aslow)
    assert began.wait(60)
    before = time.monotonic()
    assert cancel(job_id)
    assert told.wait(60)
    return time.monotonic() - before
