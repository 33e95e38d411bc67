"""None of a worker's tasks and threads can end, or fail, without a word; and no job is lost with it."""

# pyright: reportPrivateUsage=false

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dbjobq import JobQueue, Worker, job
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.listener import Listener
from dbjobq.runtime.liveness.heartbeat import Heartbeat
from dbjobq.runtime.liveness.stand_in import StandIn
from dbjobq.runtime.outcomes import Outcomes
from dbjobq.runtime.pace import Pace
from dbjobq.runtime.rest import Rest
from dbjobq.runtime.trust import TrustWindow
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.worker.pulse import PostgresPulse
from dbjobq.storage.postgres.worker.session import PostgresSession
from tests.storage.database import Database
from tests.support.waiting import ended, until
from tests.worker.conftest import LASTING, Events, Start


class Injected(Exception):  # noqa: N818 - what it is
    """What no code of ours raises."""


class Fault:
    """Makes a method raise, as soon as it is switched on."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.on = False

    def into(self, monkeypatch: pytest.MonkeyPatch, kind: type, method: str) -> None:
        original: Any = getattr(kind, method)

        def maybe(*args: Any, **kwargs: Any) -> Any:
            if self.on:
                raise self._error
            return original(*args, **kwargs)

        monkeypatch.setattr(kind, method, maybe)


@pytest.fixture
def running(queue: JobQueue) -> Iterator[tuple[Worker, str]]:
    """A worker with a job that runs until the test ends."""
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    worker = Worker(queue, poll_interval=0.05, max_poll_interval=0.2, concurrency=2, lease=5.0, shutdown_timeout=1.0)
    job_id = queue.enqueue(hold)
    worker.start()
    assert began.wait(60), repr(worker.error)
    yield worker, job_id
    go_on.set()
    worker.stop()


SERVICES = {
    "dbjobq-poller": (PostgresSession, "step"),
    "dbjobq-poller, between two exchanges": (Rest, "asleep"),
    "dbjobq-listener": (Listener, "_heed"),
    "dbjobq-fence": (TrustWindow, "left"),
    "dbjobq-guard": (Watchdog, "_is_at_it"),
    "dbjobq-heartbeat": (Heartbeat, "_pause"),
    "dbjobq-watch": (StandIn, "_pause"),
}
THREADS = {"dbjobq-heartbeat", "dbjobq-watch"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_raises_ends_its_worker_which_says_so_and_hands_its_jobs_back(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    queue: JobQueue,
    database: Database,
    events: Events,
    service: str,
) -> None:
    kind, method = SERVICES[service]
    fault = Fault(SystemExit("injected") if service in THREADS else Injected())
    fault.into(monkeypatch, kind, method)
    monkeypatch.setattr("dbjobq.storage.postgres.connect.watchdog.ANSWER_PATIENCE", 0.4)
    worker, job_id = request.getfixturevalue("running")
    fault.on = True
    with database.connection.transaction():
        if service == "dbjobq-guard":  # which has something to do only when there is something to wait for
            database.rows("lock table dbjobq.scheduled")
        elif service == "dbjobq-listener":
            queue.options(queue="another").enqueue("nothing")
        until(lambda: not worker._worker_thread.is_alive())
    fault.on = False
    assert isinstance(worker.error, RuntimeError if service in THREADS else Injected)
    assert len(events.of("worker.failed")) == 1
    assert not THREADS & {thread.name for thread in threading.enumerate()}
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == ("pending", 0)


@pytest.mark.parametrize("fails", ["between two exchanges", "whatever is written"])
def test_a_worker_that_ends_for_an_error_ends_what_it_has_started_as_when_it_stops(
    monkeypatch: pytest.MonkeyPatch, queue: JobQueue, fails: str
) -> None:
    """One start is one start. What cannot be written is left to whoever rescues it."""
    began, go_on = list[str](), threading.Event()

    @job
    def hold() -> None:
        began.append("def")
        go_on.wait(LASTING)

    @job
    async def ahold() -> None:
        began.append("async")
        await asyncio.Event().wait()

    fault = Fault(Injected())
    kind, method = (Rest, "asleep") if fails == "between two exchanges" else (PostgresSession, "step")
    fault.into(monkeypatch, kind, method)
    once, again = queue.options(max_retries=0), queue.options(max_retries=3)
    ids = [once.enqueue(hold), once.enqueue(ahold), again.enqueue(hold), again.enqueue(ahold)]
    worker = Worker(queue, poll_interval=0.05, max_poll_interval=0.2, concurrency=5)
    worker.start()
    until(lambda: len(began) == 4)
    fault.on = True
    until(lambda: not worker._worker_thread.is_alive())
    fault.on = False
    go_on.set()
    assert isinstance(worker.error, Injected)
    unwritten = ("failed", 1) if fails == "between two exchanges" else ("running", 0)
    found = [queue.get_job(job_id) for job_id in ids]
    assert [(it.status, it.attempts) for it in found if it] == [unwritten] * 2 + [("pending", 0)] * 2


def test_a_result_that_is_not_written_when_its_worker_ends_for_an_error_is_written_then(
    monkeypatch: pytest.MonkeyPatch, queue: JobQueue
) -> None:
    @job(max_retries=0)
    async def work() -> str:
        fault.on = True
        return "kept"

    fault = Fault(Injected())
    fault.into(monkeypatch, Outcomes, "take")
    worker = Worker(queue, poll_interval=0.05, max_poll_interval=0.2)
    worker.start()
    job_id = queue.enqueue(work)
    until(lambda: not worker._worker_thread.is_alive())
    assert isinstance(worker.error, Injected)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("completed", "kept")


@pytest.mark.parametrize("method", ["beat", "lost", "abandoned"])
def test_a_heartbeat_that_fails_says_so_and_goes_on(
    running: tuple[Worker, str], monkeypatch: pytest.MonkeyPatch, queue: JobQueue, events: Events, method: str
) -> None:
    worker, job_id = running
    fault = Fault(Injected())
    fault.on = True
    with monkeypatch.context() as patch:
        fault.into(patch, PostgresPulse, method)
        until(lambda: events.of("service.broken"))
    if method == "beat":
        return
    count = len(events.of("service.broken"))
    queue.cancel(job_id)
    until(lambda: events.jobs("job.cancelled") == [job_id])
    assert len(events.of("service.broken")) <= count + 1
    assert worker.error is None


def test_a_slot_that_breaks_says_so_and_another_takes_its_place(
    start: Start, monkeypatch: pytest.MonkeyPatch, queue: JobQueue, events: Events
) -> None:
    @job
    async def work() -> None: ...

    fault = Fault(Injected())
    fault.into(monkeypatch, Pace, "took")
    start(concurrency=2)
    ended(queue, [queue.enqueue(work)])
    fault.on = True
    ids = [queue.enqueue(work) for _ in range(5)]
    until(lambda: events.of("slot.broken"))
    fault.on = False
    ended(queue, [*ids, queue.enqueue(work)])


def test_jobs_for_which_there_is_no_thread_go_back_and_run_when_there_is(
    start: Start, monkeypatch: pytest.MonkeyPatch, queue: JobQueue, events: Events
) -> None:
    """As when handlers have left so many behind that the system gives no more."""

    @job(max_retries=0)
    def work() -> None: ...

    start_thread = threading.Thread.start

    def start_none(thread: threading.Thread) -> None:
        if thread.name == "dbjobq-job":
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_none)
        start(concurrency=3)
        ids = queue.enqueue_many(work, [dict[str, int]()] * 10)
        until(lambda: len(events.of("thread.unavailable")) > 1)
        now = queue.stats()  # both at once
        assert now["pending"] + now["running"] == 10
    ended(queue, ids)
    assert {found.attempts for found in queue.list_jobs()} == {0}


def test_a_thread_of_jobs_goes_on_though_what_runs_them_raises(
    start: Start, monkeypatch: pytest.MonkeyPatch, queue: JobQueue
) -> None:
    @job(max_retries=0)
    def work() -> None: ...

    fault = Fault(Injected())
    fault.into(monkeypatch, Executor, "_run_on_thread")
    worker = start()
    ended(queue, [queue.enqueue(work)])
    fault.on = True
    ended(queue, [queue.enqueue(work)], "failed")
    fault.on = False
    ended(queue, [queue.enqueue(work)])
    assert worker._worker_thread.is_alive()
