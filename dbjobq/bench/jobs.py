"""The benchmark's jobs. Its workers are `dbjobq worker dbjobq.bench.jobs`."""

from __future__ import annotations

import time

from dbjobq.jobs.registry import job

__all__ = ["noop", "noop_async", "started", "usage"]


@job(name="bench.noop_async")
async def noop_async(number: int, padding: str) -> None:
    """Do nothing, on the event loop."""


@job(name="bench.noop")
def noop(number: int, padding: str) -> None:
    """Do nothing, on a thread."""


@job(name="bench.started")
async def started(number: int, padding: str) -> float:  # noqa: ARG001 - it is there to be carried
    """Return when this job was started, by the clock that all processes of a machine share."""
    return time.monotonic()


@job(name="bench.usage", priority=10)
async def usage() -> float:
    """Return the seconds of CPU that this worker process has used."""
    return time.process_time()
