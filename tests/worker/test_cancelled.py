"""Jobs that are cancelled while they run."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dbjobq import JobContext, JobQueue, job
from tests.storage.database import Database
from tests.support.looking import result_of
from tests.support.waiting import ended, heard, lasting, settled, until
from tests.worker.cancelling import SELDOM, seconds_until_told
from tests.worker.conftest import LASTING, Events, Start

pytestmark = pytest.mark.every_storage


def test_a_running_async_job_that_is_cancelled_is_interrupted_before_a_heartbeat(
    start: Start, queue: JobQueue, loop: str
) -> None:
    began = threading.Event()
    seen: list[bool] = []

    @job
    async def slow(ctx: JobContext) -> None:
        began.set()
        try:
            await asyncio.sleep(LASTING)
        except asyncio.CancelledError:
            seen.append(ctx.cancelled)
            raise

    @job
    async def next_one() -> None: ...

    start(lease=SELDOM)
    job_id = queue.enqueue(slow)
    assert began.wait(60)
    assert queue.cancel(job_id)
    until(lambda: seen == [True])
    ended(queue, [job_id], "cancelled")
    ended(queue, [queue.enqueue(next_one)])


def test_a_running_def_job_that_is_cancelled_is_told_before_a_heartbeat(start: Start, queue: JobQueue) -> None:
    began, told = threading.Event(), threading.Event()

    @job
    def slow(ctx: JobContext) -> str:
        began.set()
        while not ctx.cancelled:
            time.sleep(0.005)
        told.set()
        return "late"

    @job
    def next_one() -> None: ...

    start(lease=SELDOM)
    job_id = queue.enqueue(slow)
    assert began.wait(60)
    assert queue.cancel(job_id)
    assert told.wait(60)
    ended(queue, [queue.enqueue(next_one)])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("cancelled", None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_running_job_that_is_cancelled_is_told_within_a_second(start: Start, queue: JobQueue, kind: str) -> None:
    start()
    assert min(seconds_until_told(queue, kind, queue.cancel) for _ in range(3)) < 1.0


@pytest.mark.parametrize("kind", ["def", "async"])
def test_with_listening_down_a_cancelled_job_is_looked_for_more_often_than_heartbeats_are_sent(
    start: Start, queue: JobQueue, dsn: str, kind: str
) -> None:
    from dbjobq import PostgresStorage
    from tests.support.faultproxy import proxied

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(dsn, listen_conninfo=through) as storage:
        proxy.refuse()
        worker = start(JobQueue(storage), lease=SELDOM)
        seconds_until_told(queue, kind, queue.cancel)
        worker.stop()


def test_a_job_that_is_cancelled_while_it_ends_is_one_or_the_other(start: Start, queue: JobQueue) -> None:
    began = threading.Semaphore(0)

    @job
    async def short(n: int) -> str:
        began.release()
        await asyncio.sleep(0.004 * (n % 5))
        return "done"

    start(concurrency=4)
    ids = queue.enqueue_many(short, [{"n": n} for n in range(60)])
    outcomes: dict[str, bool] = {}
    for job_id in ids:
        assert began.acquire(timeout=60)
        outcomes[job_id] = queue.cancel(job_id)
    settled(queue)
    for job_id, cancelled in outcomes.items():
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.status, found.result) == (("cancelled", None) if cancelled else ("completed", "done"))


def test_a_notice_of_a_cancellation_that_did_not_happen_is_not_believed(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    """Anybody who may connect can send one; and a true one may come late, when the job was revived and runs again."""
    began, told = threading.Event(), threading.Event()

    @job
    async def work() -> str:
        began.set()
        await heard(told)
        return "kept"

    start()
    job_id = queue.enqueue(work)
    assert began.wait(60)
    database.rows("select pg_notify('dbjobq', 'c' || %s)", job_id)
    other = queue.enqueue(work)
    assert queue.cancel(other)  # its notice comes after the forged one
    lasting(lambda: not events.of("job.cancelled"), 0.3)
    told.set()
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.result, found.attempts) == ("kept", 0)


def test_a_job_cancelled_and_revived_while_its_function_still_runs_ends_once_by_its_second_run(
    start: Start, queue: JobQueue
) -> None:
    began = threading.Semaphore(0)
    first, ran = threading.Event(), list[int]()

    @job
    def slow() -> int:
        ran.append(1)
        began.release()
        if len(ran) == 1:
            first.wait(LASTING)
            return 1
        return 2

    start()
    job_id = queue.enqueue(slow)
    assert began.acquire(timeout=60)
    assert queue.cancel(job_id)
    assert queue.retry(job_id)
    assert began.acquire(timeout=60)
    ended(queue, [job_id])
    first.set()
    lasting(lambda: result_of(queue, job_id) == 2, 0.3)
