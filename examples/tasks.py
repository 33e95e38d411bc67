"""Jobs for docker-compose.yml, and for a first try: `python -m examples.tasks` enqueues one (README)."""

from __future__ import annotations

import asyncio
import logging

from dbjobq import JobQueue, job

log = logging.getLogger(__name__)


@job
def greet(name: str) -> str:
    """Return a greeting, which becomes the job's result."""
    log.info("hello, %s", name)
    return f"Hello, {name}!"


@job(max_retries=1)
async def nap(seconds: float) -> float:
    """Sleep for that many seconds, and return them."""
    await asyncio.sleep(seconds)
    return seconds


if __name__ == "__main__":
    with JobQueue() as queue:  # finds the database by DBJOBQ_DSN
        print(queue.enqueue(greet, name="Ada"))
