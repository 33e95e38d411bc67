"""Job functions for workers in processes of their own. What they do they write in a diary, a file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbjobq import JobContext, job

DIARY = "DBJOBQ_TEST_DIARY"


def note(word: str, context: JobContext) -> None:
    """Add a line: what happened, to which job, in which process.

    Lines are 64 bytes each, so that none lies on two pages of the file: of such a line a reader may see the first part
    alone, and a process that is killed may leave no more.
    """
    with Path(os.environ[DIARY]).open("a") as diary:
        diary.write(f"{word} {context.job.id} {os.getpid()}".ljust(63) + "\n")


@job(retry=0.1)
def work(context: JobContext, seconds: float = 0.0) -> None:
    note("start", context)
    time.sleep(seconds)
    note("end", context)


@job(retry=0.1)
async def awork(context: JobContext, seconds: float = 0.0) -> None:
    note("start", context)
    await asyncio.sleep(seconds)
    note("end", context)


@job(retry=0.1)
def die(context: JobContext) -> None:
    note("start", context)
    os.kill(os.getpid(), signal.SIGKILL)


@job(retry=0.1)
async def die_at_once(context: JobContext) -> None:
    die(context)


@job
def returning(context: JobContext, seconds: float = 0.0) -> int:
    note("start", context)
    time.sleep(seconds)
    note("end", context)
    return os.getpid()


@job(retry=0.5)
def tell_time(context: JobContext) -> dict[str, Any]:
    """Fail once; then tell this process's time, and enqueue what is due in an hour, each way that can be said."""
    if context.job.attempts == 0:
        raise ValueError("the first time")
    note("start", context)
    local = datetime.now(UTC) + timedelta(hours=1)
    jobs = context.queue.options(queue="nobody's")
    made = [jobs.options(delay=3600).enqueue(work), jobs.options(execute_at=local).enqueue(work)]
    return {"time": time.time(), "delayed": made[0], "at": made[1]}


@job
def hold_gil(context: JobContext, seconds: int) -> int:
    """Lets nothing else of Python run, the first time: `PyDLL` calls C without giving the GIL up."""
    note("start", context)
    if context.job.attempts == 0:
        ctypes.PyDLL(None).sleep(seconds)
    note("end", context)
    return os.getpid()
