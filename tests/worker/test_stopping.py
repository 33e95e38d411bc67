"""Stopping: nothing is lost, nothing is charged, and it takes no longer than it may."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from tests.storage.database import Database
from tests.support.faultproxy import proxied
from tests.support.looking import get
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Blocker, Events, Start

KINDS = pytest.mark.parametrize("kind", ["def", "async"])


def stop_in_time(worker: Worker) -> None:
    """Stop a worker, which may not wait for what lasts."""
    before = time.monotonic()
    worker.stop()
    assert time.monotonic() - before < LASTING / 2


@pytest.mark.every_storage
@pytest.mark.parametrize(
    ("kind", "concurrency"),
    [("def", 1), ("async", 5), *(pytest.param(*more, marks=pytest.mark.slow) for more in (("def", 5), ("async", 1)))],
)
def test_stopping_under_load_loses_nothing_and_charges_nothing(
    start: Start, queue: JobQueue, kind: str, concurrency: int, backend: str
) -> None:
    ran: list[int] = []
    many = 20_000 if backend == "postgres" else 5_000

    @job
    def work(n: int) -> None:
        ran.append(n)
        if n % 10 == 0:
            time.sleep(0.005)

    @job
    async def awork(n: int) -> None:
        ran.append(n)
        if n % 10 == 0:
            await asyncio.sleep(0.005)

    ids = queue.enqueue_many(work if kind == "def" else awork, [{"n": n} for n in range(many)])
    worker = start(concurrency=concurrency, shutdown_timeout=LASTING)
    until(lambda: len(ran) > 300)
    stop_in_time(worker)
    jobs = {j.id: j for j in queue.list_jobs()}
    assert set(jobs) == set(ids)
    assert {j.attempts for j in jobs.values()} == {0}
    assert {j.status for j in jobs.values()} <= {"pending", "completed"}
    done = sum(j.status == "completed" for j in jobs.values())
    assert done == len(ran) == len(set(ran))
    assert 300 < done < many
    assert queue.count("running") == 0


@pytest.mark.every_storage
@KINDS
def test_what_runs_when_the_time_is_over_goes_back_at_once_and_free_of_charge(
    start: Start, queue: JobQueue, kind: str, events: Events
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    @job
    async def ahold() -> None:
        began.set()
        await heard(go_on)

    @job
    def done() -> None: ...

    worker = start(shutdown_timeout=1.0)
    job_id = queue.enqueue(hold if kind == "def" else ahold)
    assert began.wait(60)
    before = time.monotonic()
    stop_in_time(worker)
    assert time.monotonic() - before > 0.8
    assert not worker._worker_thread.is_alive()
    back = queue.get_job(job_id)
    assert back is not None
    assert (back.status, back.attempts, back.error) == ("pending", 0, None)
    assert events.jobs("job.released") == [job_id]
    go_on.set()
    start()
    ended(queue, [job_id])
    del done


@pytest.mark.every_storage
def test_what_was_claimed_ahead_goes_back_at_once_while_the_running_job_finishes(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    @job
    def hop(n: int) -> None:
        order.append(n)
        if n == 0:
            began.set()
            go_on.wait(LASTING)

    worker = start()
    ended(queue, queue.enqueue_many(hop, [{"n": -1}] * 300))
    order.clear()
    ids = queue.enqueue_many(hop, [{"n": n} for n in range(30)])
    assert began.wait(60)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    until(lambda: queue.count("running") == 1)
    assert {j.id for j in queue.get_pending_jobs()} == set(ids[1:])
    assert stopper.is_alive()
    go_on.set()
    stopper.join(60)
    ended(queue, ids[:1])
    assert order == [0]
    assert {j.attempts for j in queue.list_jobs()} == {0}


@pytest.mark.every_storage
@KINDS
def test_hasten_hands_back_at_once_what_runs(start: Start, queue: JobQueue, kind: str) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    @job
    async def ahold() -> None:
        began.set()
        await asyncio.sleep(LASTING)

    worker = start(shutdown_timeout=2 * LASTING)
    job_id = queue.enqueue(hold if kind == "def" else ahold)
    assert began.wait(60)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    worker.hasten()
    stopper.join(60)
    assert not worker._worker_thread.is_alive()
    go_on.set()
    back = queue.get_job(job_id)
    assert back is not None
    assert (back.status, back.attempts) == ("pending", 0)


@pytest.mark.every_storage
@KINDS
def test_a_job_that_may_start_only_once_has_failed_if_it_did_not_end_in_time(
    start: Start, queue: JobQueue, kind: str
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job(max_retries=0)
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    @job(max_retries=0)
    async def ahold() -> None:
        began.set()
        await asyncio.sleep(LASTING)

    worker = start(shutdown_timeout=0.2)
    job_id, waiting = [queue.enqueue(hold if kind == "def" else ahold) for _ in range(2)]
    assert began.wait(60)
    worker.stop()
    go_on.set()
    failed, other = queue.get_job(job_id), queue.get_job(waiting)
    assert failed is not None
    assert other is not None
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert "max_retries=0" in (failed.error or "")
    assert (other.status, other.attempts) == ("pending", 0)


def test_hasten_is_safe_before_start_and_after_the_end(start: Start, queue: JobQueue) -> None:
    worker = start()
    worker.stop()
    worker.hasten()
    Worker(queue).hasten()


@pytest.mark.every_storage
def test_a_def_job_that_never_returns_does_not_hold_up_stopping_and_is_back_in_the_queue(
    start: Start, queue: JobQueue
) -> None:
    began, forever = threading.Event(), threading.Event()

    @job
    def never() -> None:
        began.set()
        forever.wait(LASTING)

    worker = start(shutdown_timeout=0.5)
    job_id = queue.enqueue(never)
    assert began.wait(60)
    stop_in_time(worker)
    back = queue.get_job(job_id)
    assert back is not None
    assert (back.status, back.attempts) == ("pending", 0)
    forever.set()


@pytest.mark.every_storage
@pytest.mark.slow
def test_an_async_job_that_will_not_be_cancelled_does_not_hold_up_stopping_for_ever(queue: JobQueue) -> None:
    began, enough = threading.Event(), threading.Event()

    @job
    async def stubborn() -> None:
        began.set()
        while not enough.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    worker = Worker(queue, poll_interval=0.05, shutdown_timeout=0.5)
    worker.start()
    job_id = queue.enqueue(stubborn)
    assert began.wait(60)
    stop_in_time(worker)
    back = queue.get_job(job_id)
    assert back is not None
    assert (back.status, back.attempts) == ("pending", 0)
    enough.set()
    worker._worker_thread.join(60)
    assert not worker._worker_thread.is_alive()


def test_an_async_job_that_blocks_the_loop_does_not_hold_up_stopping_for_ever(
    queue: JobQueue, blocker: Blocker
) -> None:
    @job
    async def blocks() -> None:
        blocker.block()

    worker = Worker(queue, poll_interval=0.05, shutdown_timeout=0.5)
    worker.start()
    job_id = queue.enqueue(blocks)
    assert blocker.began.wait(60)
    stop_in_time(worker)
    blocker.end()
    worker._worker_thread.join(60)
    found = queue.get_job(job_id)
    assert found is not None
    assert found.status in {"pending", "completed"}
    assert found.attempts == 0


@pytest.mark.parametrize("fault", ["refuse", "blackhole"])
@pytest.mark.parametrize("busy", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["busy", "idle"])
def test_stopping_while_the_database_is_away_is_bounded(
    queue: JobQueue, dsn: str, fault: str, busy: bool, events: Events
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = Worker(JobQueue(storage), poll_interval=0.05, max_poll_interval=0.2, shutdown_timeout=1.0)
        worker.start()
        job_id = queue.enqueue(hold)
        assert began.wait(60)
        if not busy:
            go_on.set()
            ended(queue, [job_id])
        getattr(proxy, fault)()
        stop_in_time(worker)
        go_on.set()
        proxy.heal()
        worker._worker_thread.join(60)
        assert not worker._worker_thread.is_alive()


def test_a_result_that_is_ready_when_the_database_goes_is_written_when_it_is_back_before_the_time_is_over(
    queue: JobQueue, dsn: str
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = Worker(JobQueue(storage), poll_interval=0.05, shutdown_timeout=100)
        worker.start()
        job_id = queue.enqueue(hold)
        assert began.wait(60)
        proxy.refuse()
        go_on.set()
        stopper = threading.Thread(target=worker.stop)
        stopper.start()
        stopper.join(1.0)
        assert stopper.is_alive()
        proxy.heal()
        stopper.join(60)
        assert not worker._worker_thread.is_alive()
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.status, found.result, found.attempts) == ("completed", "kept", 0)


def test_a_stopped_worker_leaves_no_connection(start: Start, queue: JobQueue, dsn: str, database: Database) -> None:
    @job(transactional=True)
    async def hello() -> None: ...

    with PostgresStorage(dsn) as storage:
        worker = start(JobQueue(storage))
        ended(queue, [queue.enqueue(hello)])
        worker.stop()
    queue.close()
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    until(lambda: database.value(others) == 0)


@pytest.mark.every_storage
def test_a_retry_of_a_stopping_worker_is_written(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job(retry=100)
    def fails() -> None:
        began.set()
        go_on.wait(LASTING)
        raise ValueError

    worker = start()
    job_id = queue.enqueue(fails)
    assert began.wait(60)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    go_on.set()
    stopper.join(60)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == ("pending", 1)


# What jobs leave on the loop.


def test_a_call_in_a_thread_that_does_not_come_back_keeps_no_worker(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    async def in_thread() -> None:
        await asyncio.to_thread(blocker.block)

    worker = start()
    job_id = queue.enqueue(in_thread)
    assert blocker.began.wait(60)
    worker.stop(timeout=0.2)
    assert not worker._worker_thread.is_alive()
    assert not events.of("worker.stop_timeout")
    assert get(queue, job_id).status == "pending"


def test_a_task_that_does_not_mind_being_cancelled_keeps_no_worker(
    start: Start, queue: JobQueue, events: Events
) -> None:
    over = threading.Event()

    async def forever() -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)

    tasks: list[asyncio.Task[None]] = []

    @job
    async def leaves_a_task() -> None:
        tasks.append(asyncio.create_task(forever()))

    worker = start()
    ended(queue, [queue.enqueue(leaves_a_task)])
    worker.stop(timeout=0.2)
    assert not worker._worker_thread.is_alive()
    assert not events.of("worker.stop_timeout")
    assert [vars(record)["tasks"] for record in events.of("task.abandoned")] == [1]
    over.set()
    tasks.clear()
