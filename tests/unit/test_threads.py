"""The threads of a worker, without one."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from dbjobq.jobs.registry import JobType
from dbjobq.runtime.threads import Chunk, Threads
from dbjobq.storage.values import Claim, Outcome
from tests.unit.test_retry import CLAIM

TASK = JobType(name="f", function=lambda: None)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_running_a_job_raises_is_its_failure_and_the_chunk_ends(error: type[BaseException]) -> None:
    def run(claim: Claim, _task: JobType, _chunk: Chunk) -> Outcome | None:
        if claim.attempts == 0:
            raise error("broken")
        return Outcome(claim, "complete")

    async def work() -> list[Outcome]:
        chunk = Chunk(deque([(CLAIM, TASK), (CLAIM._replace(attempts=1), TASK)]), asyncio.Future())
        threads = Threads(1, run)
        threads.submit(chunk)
        async with asyncio.timeout(10):
            await chunk.done
        threads.stop()
        return chunk.outcomes

    first, second = asyncio.run(work())
    assert (first.event, second.event) == ("retry", "complete")
    assert first.error is not None
    assert first.error.startswith(f"{error.__name__}: broken")
