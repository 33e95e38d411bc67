"""Jobs that never end, and no timeout ends them: others get their slots, and the loop they block is replaced."""

# pyright: reportPrivateUsage=false

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from dbjobq import JobContext, JobQueue, Worker, job
from dbjobq.queue.options import EnqueueOptions
from dbjobq.runtime.liveness import stand_in
from tests.support import apart
from tests.support.looking import get, result_of
from tests.support.waiting import ended, heard, lasting, until
from tests.worker.conftest import LASTING, Blocker, Events, Start

STUCK_AFTER = 1.0


@job
def next_one() -> None: ...


@job
async def anext_one() -> None: ...


def threads(name: str) -> int:
    """How many threads have this name."""
    return [thread.name for thread in threading.enumerate()].count(name)


# Slots.


@pytest.mark.every_storage
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_does_not_end_gives_up_its_slot_and_its_result_counts_all_the_same(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, kind: str, loop: str
) -> None:
    @job
    def never() -> str:
        blocker.block()
        return "late"

    @job
    async def anever() -> str:
        blocker.began.set()
        await heard(blocker.ended)
        return "late"

    worker = start(stuck_after=STUCK_AFTER)
    stuck = queue.enqueue(never if kind == "def" else anever)
    assert blocker.began.wait(60)
    others = [queue.enqueue(next_one), queue.enqueue(anext_one), queue.enqueue(next_one)]
    ended(queue, others)
    assert events.jobs("job.stuck") == [stuck]
    assert [job.id for job in worker.current_jobs] == [stuck]
    blocker.end()
    ended(queue, [stuck])
    assert (get(queue, stuck).result, get(queue, stuck).attempts) == ("late", 0)


@pytest.mark.parametrize("kind", ["def", "async"])
def test_no_more_run_at_once_than_before_when_such_a_job_has_ended(
    start: Start, queue: JobQueue, blocker: Blocker, kind: str
) -> None:
    at_once, most = 0, 0
    lock = threading.Lock()

    @job
    def never() -> None:
        blocker.block()

    @job
    async def anever() -> None:
        blocker.began.set()
        await heard(blocker.ended)

    @job
    def counts(n: int) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.1)
        with lock:
            at_once -= 1

    start(concurrency=2, stuck_after=STUCK_AFTER)
    stuck = [queue.enqueue(never if kind == "def" else anever) for _ in range(2)]
    ended(queue, [queue.enqueue(next_one)])  # they have given up their slots
    blocker.end()
    ended(queue, stuck)
    ended(queue, queue.enqueue_many(counts, [{"n": n} for n in range(10)]))
    assert most == 2


@pytest.mark.every_storage
def test_at_most_as_many_jobs_as_there_are_slots_give_them_up(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    def never() -> None:
        blocker.block()

    start(stuck_after=STUCK_AFTER)
    ids = [queue.enqueue(never), queue.enqueue(never)]
    until(lambda: [get(queue, i).status for i in ids] == ["running"] * 2)
    last = queue.enqueue(next_one)
    lasting(lambda: get(queue, last).status == "pending", 2 * STUCK_AFTER, "the wait")
    (record,) = events.of("job.stuck")
    assert (vars(record)["job_id"], vars(record)["slots_left"]) == (ids[0], 0)
    blocker.end()
    ended(queue, [*ids, last])


@pytest.mark.parametrize("settings", [{"timeout": LASTING}, {"stuck_after": None}])
def test_a_job_with_a_timeout_keeps_its_slot_and_so_do_all_if_the_worker_is_told_so(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, settings: dict[str, float | None]
) -> None:
    @job
    def slow() -> None:
        blocker.block()

    start(stuck_after=settings.get("stuck_after", STUCK_AFTER))
    options: EnqueueOptions = {"timeout": LASTING} if "timeout" in settings else {}
    slow_one = queue.options(**options).enqueue(slow)
    assert blocker.began.wait(60)
    waits = queue.enqueue(next_one)
    lasting(lambda: get(queue, waits).status == "pending", 2 * STUCK_AFTER, "the wait")
    blocker.end()
    ended(queue, [slow_one, waits])
    assert not events.of("job.stuck")


def test_a_job_that_has_given_up_its_slot_can_be_cancelled_and_leaves_no_second_slot_behind(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    def never() -> None:
        blocker.block()

    worker = start(stuck_after=STUCK_AFTER)
    first = queue.enqueue(never)
    ended(queue, [queue.enqueue(next_one)])
    assert queue.cancel(first)
    until(lambda: not worker.current_jobs)
    second = queue.enqueue(never)  # the bound counts those that still run
    ended(queue, [queue.enqueue(next_one)])
    assert events.jobs("job.stuck") == [first, second]
    blocker.end()
    ended(queue, [second])
    assert get(queue, first).status == "cancelled"


@pytest.mark.every_storage
def test_stopping_a_worker_waits_for_jobs_that_gave_up_their_slots_and_hands_them_back_in_the_end(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    @job
    def never() -> None:
        blocker.block()

    worker = start(stuck_after=STUCK_AFTER, shutdown_timeout=1.0)
    stuck = queue.enqueue(never)
    ended(queue, [queue.enqueue(next_one)])
    worker.stop()
    assert not worker._worker_thread.is_alive()
    assert (get(queue, stuck).status, get(queue, stuck).attempts) == ("pending", 0)


# The event loop.


@pytest.mark.every_storage
def test_a_loop_that_stays_blocked_is_replaced_and_loses_nobody_else_his_job(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, loop: str
) -> None:
    """What blocks it keeps its job, which counts when it ends; coroutines beside it go back; threads go on."""
    runs: dict[str, int] = {"beside": 0, "thread": 0, "blocks": 0}
    released = threading.Event()

    @job
    async def blocks() -> str:
        runs["blocks"] += 1
        blocker.block()
        return "late"

    @job
    async def beside() -> str:
        runs["beside"] += 1
        if runs["beside"] == 1:
            await heard(blocker.began)
            await asyncio.sleep(LASTING)
        return "second"

    @job
    def thread() -> str:
        runs["thread"] += 1
        assert released.wait(LASTING)
        return "kept"

    worker = start(concurrency=3, stuck_after=STUCK_AFTER, lease=4.0)
    first_thread = worker._worker_thread
    ids = [queue.enqueue(function) for function in (beside, thread, blocks)]
    ended(queue, [ids[0]])
    assert (get(queue, ids[0]).result, get(queue, ids[0]).attempts) == ("second", 0)
    (record,) = events.of("loop.replaced")
    assert vars(record)["job_id"] == ids[2]
    assert worker._worker_thread is not first_thread
    ended(queue, [queue.enqueue(next_one), queue.enqueue(anext_one)])
    lasting(lambda: get(queue, ids[2]).status == "running", 4.0, "its lease")
    released.set()
    ended(queue, [ids[1]])
    assert get(queue, ids[1]).result == "kept"
    assert {job.id for job in worker.current_jobs} >= {ids[2]}
    blocker.end()
    ended(queue, [ids[2]])
    assert (get(queue, ids[2]).result, get(queue, ids[2]).attempts) == ("late", 0)
    first_thread.join(60)
    assert not first_thread.is_alive()
    assert worker._worker_thread.is_alive()
    assert runs == {"beside": 2, "thread": 1, "blocks": 1}
    assert not events.of("job.rescued")
    ended(queue, [queue.enqueue(next_one)])


def test_a_job_with_a_timeout_that_blocks_the_loop_takes_it_along_a_while_after_its_own_end(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "PATIENCE", 0.5)

    @job(timeout=0.5, max_retries=0)
    async def blocks() -> None:
        blocker.block()

    worker = start(stuck_after=None)
    first_thread = worker._worker_thread
    failing = queue.enqueue(blocks)
    assert blocker.began.wait(60)
    ended(queue, [queue.enqueue(anext_one)])
    assert "took longer than its timeout" in (get(queue, failing).error or "")
    assert events.jobs("loop.replaced") == [failing]
    until(lambda: threads("dbjobq-heartbeat") == 1, what="the end of the first's")
    blocker.end()
    first_thread.join(60)
    assert not first_thread.is_alive()
    ended(queue, [queue.enqueue(anext_one)])


def test_where_it_cannot_be_told_which_job_blocks_the_loop_all_that_are_on_it_are_charged(
    start: Start, queue: JobQueue, blocker: Blocker
) -> None:
    """Handed back free of charge, it would block one loop after the other."""

    @job(max_retries=0)
    async def starts() -> None:
        async def child() -> None:
            blocker.block()

        await asyncio.create_task(child())

    start(stuck_after=STUCK_AFTER)
    failing = queue.enqueue(starts)
    assert blocker.began.wait(60)
    ended(queue, [queue.enqueue(anext_one)])
    assert "blocks the event loop" in (get(queue, failing).error or "")


def test_a_blocked_job_that_is_cancelled_leaves_nothing_of_its_loop_but_the_thread(
    start: Start, queue: JobQueue, blocker: Blocker, events: Events
) -> None:
    @job
    async def blocks() -> None:
        blocker.block()

    start(stuck_after=STUCK_AFTER)
    stuck = queue.enqueue(blocks)
    ended(queue, [queue.enqueue(anext_one)])
    assert queue.cancel(stuck)
    until(lambda: threads("dbjobq-heartbeat") == 1, what="the end of the first's")
    blocker.end()
    until(lambda: threads("dbjobq-worker") == 1, what="the end of the first's thread")
    assert get(queue, stuck).status == "cancelled"


@pytest.mark.every_storage
def test_a_worker_that_has_left_a_loop_behind_stops_in_time_and_hands_back_what_blocks_it(
    queue: JobQueue, blocker: Blocker
) -> None:
    @job
    async def blocks(ctx: JobContext) -> None:
        if ctx.job.worker_id == worker.worker_id:
            blocker.block()

    worker = Worker(queue, poll_interval=0.05, stuck_after=STUCK_AFTER, shutdown_timeout=1.0)
    worker.start()
    stuck = queue.enqueue(blocks)
    ended(queue, [queue.enqueue(anext_one)])
    before = time.monotonic()
    worker.stop()
    assert time.monotonic() - before < LASTING / 2
    assert (get(queue, stuck).status, get(queue, stuck).attempts) == ("pending", 0)
    worker.join()
    assert worker.error is None
    blocker.end()
    until(lambda: not threads("dbjobq-worker"), what="the end of the first's thread")


def test_the_process_of_a_job_beside_what_blocks_the_loop_is_ended_before_the_job_runs_again(
    start: Start, queue: JobQueue, blocker: Blocker, tmp_path: Path
) -> None:
    @job
    async def blocks() -> None:
        await asyncio.to_thread(until, (tmp_path / "first").exists)
        blocker.block()

    start(concurrency=2, stuck_after=STUCK_AFTER)
    stuck = queue.enqueue(blocks)
    apart_one = queue.enqueue(apart.first_stays, file=str(tmp_path / "first"))
    ended(queue, [apart_one], timeout=60)
    first, second = result_of(queue, apart_one)
    assert first != second
    assert not Path(f"/proc/{first}/fd").exists()
    blocker.end()
    ended(queue, [stuck])
    assert get(queue, apart_one).attempts == 0
