"""How long a job may run, and what becomes of one that overruns."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dbjobq import JobContext, JobQueue, job
from tests.support.looking import error_of, result_of
from tests.support.waiting import ended, lasting, until
from tests.worker.conftest import LASTING, Start

pytestmark = pytest.mark.every_storage


@pytest.mark.parametrize("said", ["type", "options"])
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_overruns_its_timeout_fails_at_that_time(
    start: Start, queue: JobQueue, kind: str, said: str, loop: str
) -> None:
    stopped: list[bool] = []
    limit = 0.3 if said == "type" else None

    @job(timeout=limit, max_retries=0, name=f"overrun.{kind}.{said}")
    def sync(ctx: JobContext) -> str:
        by = time.monotonic() + LASTING
        while not ctx.cancelled and time.monotonic() < by:
            time.sleep(0.005)
        stopped.append(ctx.cancelled)
        return "late"

    @job(timeout=limit, max_retries=0, name=f"aoverrun.{kind}.{said}")
    async def coroutine(ctx: JobContext) -> str:
        try:
            await asyncio.sleep(LASTING)
        except asyncio.CancelledError:
            stopped.append(True)
            raise
        return "late"

    @job
    def next_one() -> None: ...

    function = sync if kind == "def" else coroutine
    options = queue.options() if said == "type" else queue.options(timeout=0.3)
    start()
    before = time.monotonic()
    job_id = options.enqueue(function)
    ended(queue, [job_id], "failed")
    assert time.monotonic() - before >= 0.3
    assert error_of(queue, job_id).startswith("TimeoutError: the attempt took longer than its timeout of 0.3 s")
    until(lambda: stopped == [True])
    ended(queue, [queue.enqueue(next_one)])


def test_the_timeout_of_the_call_outdoes_the_types(start: Start, queue: JobQueue) -> None:
    @job(timeout=0.1, max_retries=0)
    async def slow() -> str:
        await asyncio.sleep(0.4)
        return "done"

    start()
    assert result_of(queue, queue.options(timeout=5).enqueue(slow)) == "done"


def test_a_timeout_is_a_failed_attempt_and_is_retried(start: Start, queue: JobQueue) -> None:
    attempts: list[int] = []

    @job(timeout=0.2, retry=0.05)
    async def slow_at_first(ctx: JobContext) -> str:
        attempts.append(ctx.job.attempts)
        if ctx.job.attempts == 0:
            await asyncio.sleep(5)
        return "done"

    start()
    assert result_of(queue, queue.enqueue(slow_at_first)) == "done"
    assert attempts == [0, 1]


def test_a_timeout_error_of_the_functions_own_is_told_from_the_workers(start: Start, queue: JobQueue) -> None:
    @job(timeout=5, max_retries=0)
    async def own() -> None:
        raise TimeoutError("the remote side")

    @job(timeout=5, max_retries=0)
    def sync_own() -> None:
        raise TimeoutError("the remote side")

    start()
    ids = [queue.enqueue(own), queue.enqueue(sync_own)]
    ended(queue, ids, "failed")
    assert all(error_of(queue, i).startswith("TimeoutError: the remote side") for i in ids)


def test_a_def_job_that_overran_does_not_take_part_in_the_concurrency(start: Start, queue: JobQueue) -> None:
    go_on = threading.Event()

    @job(timeout=0.1, max_retries=0)
    def hold() -> None:
        go_on.wait(LASTING)

    @job
    def quick() -> None: ...

    start(concurrency=1)
    held = [queue.enqueue(hold) for _ in range(3)]
    ended(queue, held, "failed")
    ended(queue, [queue.enqueue(quick)])
    go_on.set()


def test_a_late_result_of_a_def_job_that_overran_changes_nothing(start: Start, queue: JobQueue) -> None:
    ends = threading.Event()

    @job(timeout=0.1, max_retries=0)
    def late() -> str:
        time.sleep(0.4)
        ends.set()
        return "late"

    start()
    job_id = queue.enqueue(late)
    ended(queue, [job_id], "failed")
    assert ends.wait(60)
    lasting(lambda: [j.id for j in queue.get_failed_jobs()] == [job_id], 0.3)
    found = queue.get_job(job_id)
    assert found is not None
    assert found.result is None
