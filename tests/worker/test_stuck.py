"""Handlers that block the event loop, hold the GIL or never return: reported, and nothing else is lost to them."""

# pyright: reportPrivateUsage=false

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from dbjobq import JobContext, JobQueue, Worker, job
from dbjobq.runtime.liveness import long_jobs, loop_watch
from tests.support import handlers
from tests.support.looking import get
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Blocker, Events, Processes, Start


def told(events: Events, event: str) -> dict[str, Any]:
    """The fields of the only line of an event."""
    (record,) = until(lambda: events.of(event), what=event)
    return vars(record)


# The event loop.


@pytest.mark.every_storage
def test_a_job_that_blocks_the_event_loop_is_reported_once_with_its_stack_and_so_is_the_end_of_it(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, loop: str
) -> None:
    @job
    async def blocks() -> None:
        await asyncio.sleep(0)
        blocker.block()

    @job
    async def waits() -> None:
        await asyncio.sleep(0.01)
        await heard(blocker.began)
        await asyncio.sleep(0)

    start(concurrency=2)
    ids = [queue.enqueue(waits), queue.enqueue(blocks)]
    said = told(events, "loop.blocked")
    assert (said["job_id"], said["job_type"]) == (ids[1], get(queue, ids[1]).type)
    assert (said["queue"], said["attempt"]) == ("default", 1)
    assert said["seconds"] >= loop_watch.BLOCKED
    assert "Blocker.block (" in said["stack"]
    assert f"blocks ({__file__}:" in said["stack"]
    assert "dbjobq/runtime" not in said["stack"]
    time.sleep(1.5)  # more looks, which have nothing new to say
    blocker.end()
    assert told(events, "loop.unblocked")["seconds"] >= said["seconds"]
    ended(queue, ids)
    assert len(events.of("loop.blocked")) == 1


def test_a_loop_that_is_blocked_by_a_task_which_a_job_has_started_is_reported_with_the_jobs_on_it(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    async def starts() -> None:
        async def child() -> None:
            blocker.block()

        await asyncio.create_task(child())

    @job
    async def waits() -> None:
        await heard(blocker.began)

    start(concurrency=2)
    ids = [queue.enqueue(waits), queue.enqueue(starts)]
    said = told(events, "loop.blocked")
    assert sorted(said["jobs"]) == sorted(f"{get(queue, i).type} {i}" for i in ids)
    assert "child (" in said["stack"]


def test_jobs_that_take_a_while_and_a_loop_that_is_busy_are_not_reported(
    start: Start, queue: JobQueue, events: Events
) -> None:
    @job
    async def busy() -> None:
        by = time.monotonic() + 2.5
        while time.monotonic() < by:
            sum(range(10_000))
            await asyncio.sleep(0)

    @job
    def long() -> None:
        time.sleep(2.5)

    start(concurrency=2)
    ended(queue, [queue.enqueue(busy), queue.enqueue(long)])
    assert not events.of("loop.blocked")
    assert not events.of("job.long")


@pytest.mark.every_storage
def test_what_waits_behind_a_job_that_blocks_the_loop_goes_back_and_runs_elsewhere(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    async def work(block: bool) -> None:
        if block:
            blocker.block()

    start()
    ended(queue, queue.enqueue_many(work, [{"block": False}] * 300))  # so that some are claimed ahead
    ids = queue.enqueue_many(work, [{"block": n == 0} for n in range(20)])
    assert blocker.began.wait(60)
    start()
    ended(queue, ids[1:])
    assert {get(queue, i).attempts for i in ids} == {0}
    blocker.end()
    ended(queue, ids)
    assert not events.of("job.refused")
    assert not events.of("job.rescued")


@pytest.mark.every_storage
@pytest.mark.parametrize("transactional", [False, True])
def test_a_timeout_is_kept_though_its_job_blocks_the_loop_and_the_late_result_is_refused(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, transactional: bool, backend: str
) -> None:
    if transactional and backend == "sqlite":
        pytest.skip("no transactional jobs there")
    by: list[str | None] = []

    @job(timeout=0.5, retry=0.05, transactional=transactional)
    async def blocks(ctx: JobContext) -> str:
        by.append(ctx.job.worker_id)
        if len(by) == 1:
            blocker.block()
            return "late"
        return "in time"

    @job
    async def next_one() -> None: ...

    first = start(lease=30.0)
    job_id = queue.enqueue(blocks)
    assert blocker.began.wait(60)
    second = start(lease=30.0)
    ended(queue, [job_id])
    assert by == [first.worker_id, second.worker_id]
    found = get(queue, job_id)
    assert (found.attempts, found.result) == (1, "in time")
    assert "timeout of 0.5 s" in vars(events.of("job.retry")[0])["error"]
    assert "blocks the event loop" in vars(events.of("job.retry")[0])["error"]
    second.stop()
    blocker.end()
    ended(queue, [queue.enqueue(next_one)])
    assert get(queue, job_id).result == "in time"
    assert events.jobs("job.retry") == [job_id]


def test_a_job_that_may_start_once_and_blocks_the_loop_past_its_timeout_has_failed(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    @job(timeout=0.5, max_retries=0)
    async def blocks() -> None:
        blocker.block()

    start()
    job_id = queue.enqueue(blocks)
    ended(queue, [job_id], "failed")
    assert (get(queue, job_id).error or "").startswith("TimeoutError: ")


def test_a_def_job_that_ends_in_time_while_the_loop_is_blocked_is_not_failed_for_it(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    @job
    async def blocks() -> None:
        blocker.block()

    @job(timeout=1.0)
    def short() -> str:
        assert blocker.began.wait(60)
        return "kept"

    start(concurrency=2)
    ids = [queue.enqueue(short), queue.enqueue(blocks)]
    assert blocker.began.wait(60)
    time.sleep(1.0 + long_jobs.OVERTIME + 1.5)  # its timeout, and then some
    blocker.end()
    ended(queue, ids)
    assert (get(queue, ids[0]).result, get(queue, ids[0]).attempts) == ("kept", 0)


def test_a_transaction_that_only_the_loop_could_end_does_not_hold_up_the_heartbeat(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    """The overdue job's lease is locked by its own transaction, as while it commits."""
    locked = threading.Event()

    @job(timeout=0.5, transactional=True, max_retries=0)
    async def commits(ctx: JobContext) -> None:
        await ctx.connection.execute("select from dbjobq.lease where job_id = %s for update", (ctx.job.id,))
        locked.set()
        await asyncio.sleep(LASTING)

    @job
    async def blocks(ctx: JobContext) -> None:
        if ctx.job.attempts == 0:
            await heard(locked)
            blocker.block()

    start(concurrency=2, lease=4.0)
    start(lease=4.0)
    ids = [queue.enqueue(commits), queue.enqueue(blocks)]
    assert blocker.began.wait(60)
    time.sleep(4.0)  # more than a life
    blocker.end()
    ended(queue, ids[:1], "failed")
    ended(queue, ids[1:])
    assert not events.of("job.rescued")
    assert get(queue, ids[1]).attempts == 0


# Stopping.


@pytest.mark.slow
@pytest.mark.every_storage
def test_stopping_a_worker_whose_loop_is_blocked_hands_its_jobs_back_and_ends_its_heartbeat(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    other_runs = threading.Event()

    @job
    async def blocks(ctx: JobContext) -> str:
        await heard(other_runs)
        if ctx.job.worker_id == worker.worker_id:
            blocker.block()
        return "second"

    @job(max_retries=0)
    async def once() -> None:
        await asyncio.sleep(LASTING)

    @job
    def short() -> str:
        other_runs.set()
        assert blocker.began.wait(60)
        return "kept"

    worker = Worker(queue, poll_interval=0.05, concurrency=3, lease=30.0, shutdown_timeout=2.0)
    ids = [queue.enqueue(function) for function in (once, blocks, short)]
    worker.start()
    assert blocker.began.wait(60)
    before = time.monotonic()
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    until(lambda: get(queue, ids[1]).status == "pending", what="the hand-back")
    assert [(get(queue, i).status, get(queue, i).attempts) for i in ids] == [
        ("failed", 1),
        ("pending", 0),
        ("completed", 0),
    ]
    assert get(queue, ids[2]).result == "kept"
    assert events.jobs("job.released") == [ids[1]]
    stopper.join(60)
    assert time.monotonic() - before < LASTING / 4
    assert worker._worker_thread.is_alive()
    assert len(events.of("worker.stop_timeout")) == 1
    until(lambda: "dbjobq-heartbeat" not in [thread.name for thread in threading.enumerate()])
    start()
    ended(queue, ids[1:2])
    blocker.end()
    worker._worker_thread.join(60)
    assert not worker._worker_thread.is_alive()
    assert worker.error is None
    found = get(queue, ids[1])
    assert (found.result, found.attempts) == ("second", 0)


# Jobs that never return.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are called long after 0.4 s; after 5 minutes otherwise."""
    monkeypatch.setattr(long_jobs, "LONG", 0.4)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_does_not_end_is_reported_again_and_again_ever_less_often_with_its_stack(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, kind: str, loop: str
) -> None:
    def deep() -> None:
        blocker.block()

    async def adeep() -> None:
        await asyncio.sleep(LASTING)

    @job
    def never() -> None:
        deep()

    @job
    async def anever() -> None:
        await adeep()

    start(lease=30.0)
    job_id = queue.enqueue(never if kind == "def" else anever)
    until(lambda: len(events.of("job.long")) == 3)
    seconds = [vars(record)["seconds"] for record in events.of("job.long")]
    assert events.jobs("job.long") == [job_id] * 3
    assert seconds[2] - seconds[1] > seconds[1] - seconds[0] > 0
    stack: str = vars(events.of("job.long")[0])["stack"]
    assert f"deep ({__file__}:" in stack
    assert "never (" in stack
    assert "dbjobq/runtime" not in stack
    queue.cancel(job_id)


@pytest.mark.usefixtures("impatient")
def test_a_job_with_a_timeout_of_its_own_is_not_called_long(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job(timeout=LASTING)
    def slow() -> None:
        blocker.block()

    start()
    job_id = queue.enqueue(slow)
    assert blocker.began.wait(60)
    time.sleep(1.5)
    blocker.end()
    ended(queue, [job_id])
    assert not events.of("job.long")


@pytest.mark.every_storage
@pytest.mark.parametrize("way", ["cancelled", "timed out"])
def test_the_slot_of_a_def_that_never_returns_is_free_again_when_its_job_is_over(
    start: Start, queue: JobQueue, blocker: Blocker, way: str
) -> None:
    @job(timeout=0.5 if way == "timed out" else None, max_retries=0)
    def never() -> None:
        blocker.block()

    @job
    def next_one() -> None: ...

    start()
    job_id = queue.enqueue(never)
    assert blocker.began.wait(60)
    if way == "cancelled":
        queue.cancel(job_id)
    ended(queue, [queue.enqueue(next_one)])
    ended(queue, [job_id], "cancelled" if way == "cancelled" else "failed")


# The GIL, in processes of their own: nothing of Python runs in one whose GIL is held.


@pytest.mark.slow
@pytest.mark.every_storage
def test_a_job_that_holds_the_gil_past_the_lease_runs_elsewhere_and_its_late_result_is_refused(
    queue: JobQueue, processes: Processes
) -> None:
    both = {process.pid: process for process in (processes.start(lease=1.5), processes.start(lease=1.5))}
    until(lambda: all("worker.started" in process.log() for process in both.values()))
    job_id = queue.enqueue(handlers.hold_gil, seconds=5)
    (first,) = until(lambda: processes.diary("start"))
    hog = both.pop(first.pid)
    (other,) = both.values()
    until(lambda: len(processes.diary("start")) == 2, 4, "the rescue")
    ended(queue, [job_id])
    assert (get(queue, job_id).result, get(queue, job_id).attempts) == (other.pid, 1)
    until(lambda: f"job.refused {job_id}" in hog.log() or f"job.taken {job_id}" in hog.log())
    # It stood still, which it cannot tell if that fell into a heartbeat; but then that its lease was over.
    assert {"process.stalled", "worker.lease_lost"} & set(hog.log().split())
    assert other.stop() == 0
    again = queue.enqueue(handlers.returning)
    ended(queue, [again])
    assert get(queue, again).result == hog.pid
    assert get(queue, job_id).result == other.pid
    assert hog.stop() == 0


def test_a_job_that_holds_the_gil_for_less_than_the_lease_is_not_taken_from_its_worker(
    queue: JobQueue, processes: Processes
) -> None:
    def noticed() -> bool:
        return any("process.stalled" in process.log() for process in processes.made)

    for _ in range(2):
        processes.start(lease=10.0)
    ids: list[str] = []
    while not noticed():  # it is not if it falls into a heartbeat
        assert len(ids) < 3
        ids.append(queue.enqueue(handlers.hold_gil, seconds=2))
        ended(queue, ids)
        with suppress(AssertionError):
            until(noticed, 2)
    assert [note.word for note in processes.diary()] == ["start", "end"] * len(ids)
