"""Event loops that are left to a job for good: nothing but that job is lost with them, whatever they were at."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dbjobq import JobContext, JobQueue, Worker, job
from dbjobq.runtime.liveness import stand_in
from tests.storage.database import Database
from tests.support.looking import get, result_of
from tests.support.waiting import ended, heard, lasting, until
from tests.worker.conftest import LASTING, Blocker, Events, Start

STUCK_AFTER = 1.0


@job
async def anext_one() -> None: ...


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop whose job has failed at its timeout is left after half a second."""
    monkeypatch.setattr(stand_in, "PATIENCE", 0.5)


@pytest.mark.parametrize("how", ["replaced", "stopped"])
def test_a_claim_whose_answer_a_blocked_loop_never_read_goes_back(
    start: Start, queue: JobQueue, database: Database, blocker: Blocker, how: str
) -> None:
    @job
    async def blocks() -> None:
        queue.enqueue(anext_one)
        while True:
            await asyncio.sleep(0)
            leases = database.value("select count(*) from dbjobq.lease")
            if leases == 2 and len(worker.current_jobs) == 1:
                blocker.block()
                return

    settings = {"stuck_after": STUCK_AFTER} if how == "replaced" else {"shutdown_timeout": 1.0}
    worker = start(concurrency=2, lease=30.0, **settings)
    queue.enqueue(blocks)
    assert blocker.began.wait(60)
    (other,) = [found for found in queue.list_jobs("running") if found.type.endswith("anext_one")]
    if how == "stopped":
        worker.stop()
        assert (get(queue, other.id).status, get(queue, other.id).attempts) == ("pending", 0)
    else:
        ended(queue, [other.id])
        assert get(queue, other.id).attempts == 0


@pytest.mark.usefixtures("impatient")
def test_a_job_that_blocks_every_loop_it_gets_fails_in_the_end_and_the_worker_works(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    @job(timeout=0.2, max_retries=2, retry=0.01)
    async def blocks() -> None:
        blocker.block()

    worker = start(shutdown_timeout=LASTING)
    failing = queue.enqueue(blocks)
    ended(queue, [failing], "failed")
    ended(queue, [queue.enqueue(anext_one)])
    assert get(queue, failing).attempts == 3
    assert worker.current_jobs == []
    before = time.monotonic()
    worker.stop()
    assert time.monotonic() - before < LASTING / 2  # nobody waits for what holds nothing


def test_a_transaction_beside_what_blocks_the_loop_is_ended_before_its_job_runs_again(
    start: Start, queue: JobQueue, database: Database, blocker: Blocker
) -> None:
    database.rows("create table account (n int)")
    database.rows("insert into account values (0)")
    wrote = threading.Event()

    @job(transactional=True)
    async def writes(ctx: JobContext) -> str:
        await ctx.connection.execute("update account set n = n + 1")
        if not wrote.is_set():
            wrote.set()
            await asyncio.sleep(LASTING)
        return "second"

    @job
    async def blocks() -> None:
        await heard(wrote)
        blocker.block()

    start(concurrency=2, stuck_after=STUCK_AFTER)
    ids = [queue.enqueue(writes), queue.enqueue(blocks)]
    assert result_of(queue, ids[0]) == "second"
    assert database.value("select n from account") == 1


def test_a_loop_that_is_left_has_no_connection_that_nobody_reads(
    start: Start, queue: JobQueue, database: Database, blocker: Blocker
) -> None:
    """One that listens would keep the server from forgetting what is notified."""

    @job
    async def blocks() -> None:
        blocker.block()

    listening = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
    start(stuck_after=STUCK_AFTER)
    stuck = queue.enqueue(blocks)
    ended(queue, [queue.enqueue(anext_one)])
    until(lambda: database.value(listening) == 1, what="one listener")
    blocker.end()
    ended(queue, [stuck])
    until(lambda: database.value(listening) == 1, what="one listener")


@pytest.mark.parametrize("beside", [False, True])
def test_a_callback_that_blocks_the_loop_is_charged_whatever_runs_on_threads(
    start: Start, queue: JobQueue, blocker: Blocker, beside: bool
) -> None:
    @job(max_retries=0)
    async def calls() -> None:
        asyncio.get_running_loop().call_soon(blocker.block)
        await asyncio.sleep(LASTING)

    @job
    def thread() -> str:
        blocker.ended.wait(LASTING)
        return "kept"

    start(concurrency=2, stuck_after=STUCK_AFTER)
    others = [queue.enqueue(thread)] if beside else []
    until(lambda: queue.count("running") == len(others))
    failing = queue.enqueue(calls)
    ended(queue, [failing], "failed")
    ended(queue, [queue.enqueue(anext_one)])
    blocker.end()
    ended(queue, others)


@pytest.mark.usefixtures("impatient")
def test_a_timeout_counts_too_where_a_task_of_the_jobs_own_blocks_the_loop(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    @job(timeout=0.5, max_retries=0)
    async def waits() -> None:
        async def child() -> None:
            blocker.block()

        await asyncio.gather(child())

    start(stuck_after=None)
    failing = queue.enqueue(waits)
    assert blocker.began.wait(60)
    ended(queue, [queue.enqueue(anext_one)])
    ended(queue, [failing], "failed")


def test_what_was_handed_back_ends_at_once_when_its_loop_comes_back(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    runs, over = list[int](), threading.Event()

    @job
    async def beside() -> None:
        runs.append(1)
        if len(runs) > 1:
            return await heard(over)
        try:
            await asyncio.sleep(LASTING)
        finally:
            over.set()

    @job
    async def blocks() -> None:
        await asyncio.sleep(0.2)
        blocker.block()

    start(concurrency=2, stuck_after=STUCK_AFTER, lease=30.0)
    ids = [queue.enqueue(beside), queue.enqueue(blocks)]
    until(lambda: len(runs) == 2)
    assert not over.is_set()
    blocker.end()
    ended(queue, ids)
    until(lambda: events.of("loop.unblocked"))


def test_joining_waits_for_what_a_thread_still_holds_that_came_back(queue: JobQueue, blocker: Blocker) -> None:
    """The second loop is left, too, with a `def` at work beside what blocks it."""
    go_on = threading.Event()
    blocked = [threading.Event(), threading.Event()]

    @job
    async def blocks(which: int) -> None:
        blocked[which].set()
        blocker.ended.wait(LASTING)

    @job
    def works() -> str:
        go_on.wait(LASTING)
        return "kept"

    worker = Worker(queue, poll_interval=0.05, concurrency=2, stuck_after=STUCK_AFTER, shutdown_timeout=LASTING)
    worker.start()
    queue.enqueue(blocks, which=0)
    assert blocked[0].wait(60)
    ended(queue, [queue.enqueue(anext_one)])
    works_on = queue.enqueue(works)
    until(lambda: get(queue, works_on).status == "running")
    queue.enqueue(blocks, which=1)
    assert blocked[1].wait(60)
    ended(queue, [queue.enqueue(anext_one)])
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    joining = threading.Thread(target=worker.join)
    joining.start()
    lasting(joining.is_alive, 1.0, "the wait")
    go_on.set()
    blocker.end()
    joining.join(60)
    assert not joining.is_alive()
    assert result_of(queue, works_on) == "kept"
    stopping.join(60)


def test_progress_is_told_on_a_loop_that_came_back(start: Start, queue: JobQueue, blocker: Blocker) -> None:
    told = threading.Event()

    @job
    async def goes_on(ctx: JobContext) -> None:
        blocker.block()
        while not told.is_set():
            ctx.progress(7, 9)
            await asyncio.sleep(0.1)

    start(stuck_after=STUCK_AFTER)
    stuck = queue.enqueue(goes_on)
    ended(queue, [queue.enqueue(anext_one)])
    blocker.end()
    said = until(lambda: queue.get_progress(stuck), what="progress")
    assert said is not None
    assert (said["done"], said["total"]) == (7, 9)
    told.set()
    ended(queue, [stuck])
