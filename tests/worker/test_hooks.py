"""Hooks are told of batches, on a thread of their own, and can harm nothing."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import dbjobq.hooks
from dbjobq import Hooks, JobQueue, hooks, job
from dbjobq.events.bus import Event, subscribe, unsubscribe
from dbjobq.hooks import Claim, NewJob, Outcome, Rescued, WorkerSaid
from tests.support import handlers
from tests.support.waiting import ended, until
from tests.worker.conftest import LASTING, Blocker, Events, Processes, Start

EMPTY: list[dict[str, Any]] = [{}]
Add = Callable[[Hooks], None]


class Told(Hooks):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.jobs: list[NewJob] = []
        self.batches: list[Sequence[Claim]] = []
        self.outcomes: list[Outcome] = []
        self.refused: list[Outcome] = []
        self.rescues: list[Rescued] = []
        self.said: list[WorkerSaid] = []
        self.threads: set[str] = set()

    def enqueueing(self, jobs: Sequence[NewJob]) -> None:
        self.jobs += jobs

    def claimed(self, batch: Sequence[Claim]) -> None:
        self.batches.append(batch)

    def ended(self, batch: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        self.threads.add(threading.current_thread().name)
        self.outcomes += batch
        self.refused += refused

    def rescued(self, jobs: Sequence[Rescued]) -> None:
        self.rescues += jobs

    def worker(self, said: WorkerSaid) -> None:
        self.said.append(said)

    def ends(self) -> dict[str, list[str]]:
        return {
            outcome.claim.id: [o.event for o in self.outcomes if o.claim.id == outcome.claim.id]
            for outcome in self.outcomes
        }


@pytest.fixture
def add() -> Iterator[Add]:
    added: list[Hooks] = []

    def add(some: Hooks) -> None:
        hooks.add(some)
        added.append(some)

    yield add
    for some in added:
        hooks.remove(some)


@pytest.fixture
def told(add: Add) -> Told:
    add(told := Told())
    return told


@job
def nothing() -> None:
    pass


@job
async def anothing() -> None:
    pass


@pytest.mark.every_storage
def test_each_job_is_told_of_once_in_batches(start: Start, queue: JobQueue, told: Told) -> None:
    ids = [
        *queue.enqueue_many(nothing, EMPTY * 300),
        *queue.enqueue_many(anothing, EMPTY * 300),
        queue.enqueue(nothing),
    ]
    assert [(j.type, j.data) for j in told.jobs] == [
        (nothing.__module__ + ".nothing", ""),
        (anothing.__module__ + ".anothing", ""),
        (nothing.__module__ + ".nothing", "{}"),
    ]
    worker = start()
    ended(queue, ids)
    worker.stop()
    assert sorted(claim.id for batch in told.batches for claim in batch) == sorted(ids)
    assert told.ends() == {job_id: ["complete"] for job_id in ids}
    assert len(told.batches) < len(ids) / 4
    assert told.threads == {"dbjobq-hooks"}
    events = [said.event for said in told.said]
    assert (events[0], events[-1]) == ("worker.started", "worker.stopped")
    assert not [event for event in events if event.startswith("job.")]


@pytest.mark.every_storage
def test_how_attempts_end_is_told(start: Start, queue: JobQueue, told: Told) -> None:
    @job(retry=0.01, max_retries=1)
    def breaks() -> None:
        raise ValueError("no")

    worker = start()
    job_id = queue.enqueue(breaks)
    ended(queue, [job_id], "failed")
    worker.stop()
    assert told.ends() == {job_id: ["retry", "fail"]}
    assert isinstance(told.outcomes[-1].exception, ValueError)


def test_a_hook_that_fails_harms_nothing_and_is_reported_once(
    start: Start, queue: JobQueue, add: Add, told: Told, events: Events
) -> None:
    class Fails(Hooks):
        def _fail(self, *_: object) -> None:
            raise SystemExit("no")

        enqueueing = claimed = ended = rescued = worker = _fail  # type: ignore[assignment]

    hooks.remove(told)
    add(Fails())
    add(told)
    worker = start()
    ids = [queue.enqueue(nothing) for _ in range(20)]
    ended(queue, ids)
    worker.stop()
    assert told.ends() == {job_id: ["complete"] for job_id in ids}
    lines = events.of("hook.failed")
    assert len({vars(line)["hook"] for line in lines}) == len(lines)
    assert all(line.exc_info is not None and line.levelno == logging.ERROR for line in lines)


def test_a_hook_that_hangs_holds_up_no_job_no_heartbeat_and_no_stop(
    start: Start, queue: JobQueue, add: Add, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, began = threading.Event(), threading.Event()
    monkeypatch.setattr(dbjobq.hooks, "MOST_WAITING", 5)
    monkeypatch.setattr(dbjobq.hooks, "LONG_CALL", 0.0)
    monkeypatch.setattr(dbjobq.hooks, "_reported", {})

    class Hangs(Hooks):
        def claimed(self, batch: Sequence[Claim]) -> None:
            del batch
            began.set()
            go_on.wait(200)

    add(Hangs())
    try:
        worker = start(lease=1.0)
        ended(queue, [queue.enqueue(nothing)])
        assert began.wait(60)
        for _ in range(10):
            ended(queue, [queue.enqueue(nothing)])
        worker.stop()
        assert not worker._worker_thread.is_alive()
        assert not events.of("worker.lease_lost")
    finally:
        go_on.set()
    until(lambda: events.of("hook.left_out"))
    assert vars(events.of("hook.left_out")[0])["calls"] >= 1
    assert events.of("hook.slow")


def test_what_is_rescued_is_told(start: Start, queue: JobQueue, told: Told, processes: Processes) -> None:
    victim = processes.start(lease=1.0)
    job_id = queue.enqueue(handlers.work, seconds=LASTING)
    until(lambda: processes.diary("start"))
    victim.kill()
    start(lease=1.0, queues=["another"])
    until(lambda: [rescued.id for rescued in told.rescues] == [job_id], 60)
    assert not told.rescues[0].dead


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_transactional_job_is_told_when_it_commits_or_is_refused(
    start: Start, queue: JobQueue, told: Told, kind: str
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def wait(cancelled: str) -> None:
        if cancelled:
            began.set()
            go_on.wait(LASTING)

    @job(transactional=True)
    def writes(cancelled: str) -> None:
        wait(cancelled)

    @job(transactional=True)
    async def awrites(cancelled: str) -> None:
        wait(cancelled)  # it must not notice

    worker = start()
    function = writes if kind == "def" else awrites
    kept = queue.enqueue(function, cancelled="")
    ended(queue, [kept])
    lost = queue.enqueue(function, cancelled="yes")
    assert began.wait(60)
    assert queue.cancel(lost)
    go_on.set()
    until(lambda: worker.current_job is None)
    worker.stop()
    assert told.ends() == {kept: ["complete"]}
    assert {outcome.claim.id for outcome in told.refused} <= {lost}


def test_what_is_written_in_the_place_of_a_blocked_loop_is_told(
    start: Start, queue: JobQueue, told: Told, blocker: Blocker
) -> None:
    @job(timeout=0.5, max_retries=0)
    async def blocks() -> None:
        blocker.block()

    start(lease=3.0)
    job_id = queue.enqueue(blocks)
    ended(queue, [job_id], "failed")
    until(lambda: told.ends() == {job_id: ["fail"]})


def test_without_hooks_nothing_is_made(start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbjobq.hooks, "_teller", dbjobq.hooks._Teller())
    ids = queue.enqueue_many(anothing, EMPTY * 1000)
    tracemalloc.start()
    try:
        worker = start()
        ended(queue, ids)
        worker.stop()
        made = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, dbjobq.hooks.__file__)])
    finally:
        tracemalloc.stop()
    assert made.statistics("lineno") == []


def test_a_job_that_completes_tells_no_event_unless_debug_is_heard(start: Start, queue: JobQueue) -> None:
    told: list[str] = []

    def subscriber(event: Event, *_: object) -> None:
        told.append(event.name)

    subscribe(subscriber)
    try:
        worker = start()
        ended(queue, [*queue.enqueue_many(nothing, EMPTY * 100), *queue.enqueue_many(anothing, EMPTY * 100)])
        worker.stop()
    finally:
        unsubscribe(subscriber)
    assert told == ["worker.started", "worker.stopped"]


def test_what_is_not_overridden_is_not_called(add: Add) -> None:
    add(Hooks())
    assert (dbjobq.hooks._called.claimed, dbjobq.hooks._called.ended, dbjobq.hooks._called.worker) == ((), (), ())


def test_hooks_that_cannot_be_called_are_refused() -> None:
    class Awaited(Hooks):
        async def claimed(self, batch: Sequence[Claim]) -> None:  # type: ignore[override]
            pass

    with pytest.raises(TypeError, match=r"Awaited\.claimed: must be a def"):
        hooks.add(Awaited())
    unfit: Any = object()
    with pytest.raises(TypeError, match=r"must be an object of a subclass of dbjobq\.Hooks"):
        hooks.add(unfit)
