"""All services have one form: started and stopped any number of times, each leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.maintenance.rescue import Rescue
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.loop import event_loop
from dbjobq.runtime.supervisor import Supervisor
from dbjobq.service import NothingToDo, Service, ThreadService, run_all
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage
from tests.support.waiting import until
from tests.worker.conftest import LASTING, Events

TIMES = 200
NAMES = ["poller", "listener", "fence", "rescue", "slots", "watch", "heartbeat", "session", "guard"]
"""In the order in which they stop."""


@pytest.fixture
def sqlite() -> Iterator[SQLAlchemyStorage]:
    with SQLAlchemyStorage("sqlite:///:memory:") as storage:
        yield storage


def supervisor(storage: BaseStorage) -> Supervisor:
    settings: dict[str, Any] = {"poll_interval": 0.05, "max_poll_interval": 0.1, "stuck_after": None, "queues": None}
    settings |= {"concurrency": 2, "lease": 5.0, "shutdown_timeout": 1.0, "unknown_within": 60.0}
    settings |= {"imports": (), "middleware": ()}
    return Supervisor(WorkerConfig.made(**settings), storage, "tests", lambda: False, [Rescue()])


def on_a_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with event_loop() as loop:
        loop.run_until_complete(main())


SHARED = ("dbjobq-sqlite", "dbjobq-cutter", "dbjobq-hooks", "dbjobq-processes")
"""Threads that are no service's: of a session, until it is forgotten, and of the process."""


@pytest.fixture(autouse=True)
def others() -> set[threading.Thread]:
    """The threads that other tests have left."""
    OTHERS.clear()
    OTHERS.update(threading.enumerate())
    return OTHERS


OTHERS: set[threading.Thread] = set()


def threads() -> set[str]:
    """The names of the threads of services."""
    names = {thread.name for thread in threading.enumerate() if thread not in OTHERS}
    return {name for name in names if name.startswith("dbjobq-") and not name.startswith(SHARED)}


def test_a_worker_consists_of_services_in_the_order_in_which_they_stop(sqlite: SQLAlchemyStorage) -> None:
    async def main() -> None:
        assert [service.name for service in supervisor(sqlite).services] == NAMES

    on_a_loop(main)


@pytest.mark.parametrize("name", NAMES)
def test_each_service_is_started_and_stopped_any_number_of_times_and_leaves_nothing_behind(
    sqlite: SQLAlchemyStorage, name: str
) -> None:
    """Stopped at once, after a step, after a few: what is stopped half-way is stopped, too."""

    async def main() -> None:
        for n in range(TIMES):
            needed = {name, "slots"} if name == "poller" else {name}
            task = asyncio.create_task(run_all([it for it in supervisor(sqlite).services if it.name in needed]))
            for _ in range(n % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=LASTING)
            assert task.cancelled() or task.exception() is None
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not threads()

    on_a_loop(main)


def test_the_guard_of_connections_too(dsn: str) -> None:
    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            guard = storage.session("tests", None, 3.0).guard()
            assert guard.name == "guard"
            for n in range(TIMES):
                task = asyncio.create_task(guard.run())
                for _ in range(n % 5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()

    on_a_loop(main)


def test_a_whole_worker_is_started_and_stopped_any_number_of_times(sqlite: SQLAlchemyStorage) -> None:
    async def main() -> None:
        for n in range(TIMES // 4):
            it = supervisor(sqlite)
            running = asyncio.create_task(it.run())
            for _ in range(n):
                await asyncio.sleep(0)
            it.stop(hasten=True)
            await asyncio.wait_for(running, LASTING)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not threads()

    on_a_loop(main)


@pytest.mark.parametrize("name", NAMES)
def test_any_service_that_raises_ends_its_worker_which_still_drains(
    sqlite: SQLAlchemyStorage, monkeypatch: pytest.MonkeyPatch, events: Events, name: str
) -> None:
    """The others end as at `stop`, and what runs goes back."""
    began, raises = threading.Event(), threading.Event()

    class Injected(Exception):  # noqa: N818 - what it is
        pass

    async def run_and_raise(services: list[Service]) -> None:
        (faulty,) = [service for service in services if service.name == name]
        run = faulty.run

        async def raising() -> None:
            running = asyncio.ensure_future(run())
            try:
                await asyncio.to_thread(raises.wait, LASTING)
                raise Injected
            finally:
                running.cancel()
                await asyncio.wait([running])

        monkeypatch.setattr(faulty, "run", raising)
        await run_all(services)

    @job(name="form.holds")
    async def holds() -> None:
        began.set()
        await asyncio.sleep(LASTING)

    monkeypatch.setattr("dbjobq.runtime.supervisor.run_all", run_and_raise)
    queue = JobQueue(sqlite)
    job_id = queue.enqueue(holds)
    worker = Worker(queue, poll_interval=0.05, max_poll_interval=0.1)
    worker.start()
    assert began.wait(60)
    raises.set()
    worker.join()
    assert isinstance(worker.error, Injected)
    assert len(events.of("worker.failed")) == 1
    until(lambda: not threads() - {"dbjobq-worker"})
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == ("pending", 0)


# The form itself.


class Noted(Service):
    """Notes when it starts and ends, in a list that several share."""

    def __init__(self, name: str, notes: list[str], *, ends: Exception | None = None, is_ready: bool = True) -> None:
        self.name, self._notes, self._ends, self._is_ready = name, notes, ends, is_ready

    async def ready(self) -> None:
        if not self._is_ready:
            await asyncio.Event().wait()

    async def run(self) -> None:
        self._notes.append(f"+{self.name}")
        try:
            if self._ends is not None:
                await asyncio.sleep(0)
                raise self._ends
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self._notes.append(f"-{self.name}")


def test_services_start_in_one_order_and_stop_in_the_reverse() -> None:
    notes: list[str] = []

    async def main() -> None:
        running = asyncio.create_task(run_all([Noted(name, notes) for name in "abc"]))
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    on_a_loop(main)
    assert notes == ["+c", "+b", "+a", "-a", "-b", "-c"]


def test_what_ends_a_service_ends_all_and_is_raised() -> None:
    notes: list[str] = []
    error = ValueError("injected")
    with pytest.raises(ValueError, match="injected"):
        on_a_loop(lambda: run_all([Noted("a", notes), Noted("b", notes, ends=error), Noted("c", notes)]))
    assert notes[:2] == ["+c", "+b"]
    assert notes[-1] == "-c"


def test_nothing_starts_after_a_service_that_ends_before_it_is_ready() -> None:
    notes: list[str] = []
    error = ValueError("injected")
    with pytest.raises(ValueError, match="injected"):
        on_a_loop(lambda: run_all([Noted("a", notes), Noted("b", notes, ends=error, is_ready=False)]))
    assert notes == ["+b", "-b"]


class Beside(ThreadService):
    """Works once the bell rings; is over when told so."""

    def __init__(self) -> None:
        self.is_over, self.worked = False, threading.Event()
        super().__init__("beside", self, lambda: self.is_over)

    def cut(self) -> None: ...

    def close(self) -> None: ...

    def _pause(self) -> float:
        return LASTING

    def _work(self) -> None:
        self.worked.set()


def test_a_thread_that_has_nothing_left_to_live_for_ends_and_its_service_does_not() -> None:
    """Its loop may have come back, and be just about to write what is left."""

    async def main() -> None:
        service = Beside()
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0)
        assert threads() == {"dbjobq-beside"}
        service.is_over = True
        service.ring()
        await asyncio.to_thread(until, lambda: not threads())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    on_a_loop(main)


def test_a_thread_is_told_to_end_though_nobody_waits_for_it() -> None:
    """As when a worker's task is cancelled twice: a heartbeat would keep the jobs from others for ever."""

    class Stuck(Beside):
        """Does not end before it is cut."""

        def __init__(self) -> None:
            super().__init__()
            self.is_cut = threading.Event()

        def cut(self) -> None:
            self.is_cut.set()

        def _pause(self) -> float:
            return 0.0

        def _work(self) -> None:
            self.worked.set()
            self.is_cut.wait(LASTING)

    async def main(*, twice: bool) -> None:
        service = Stuck()
        running = asyncio.create_task(service.run())
        await asyncio.to_thread(service.worked.wait, 60)
        running.cancel()
        if twice:
            await asyncio.sleep(0)
            running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        if twice:
            service.is_cut.set()  # it was not waited for
        await asyncio.to_thread(until, lambda: not threads())

    on_a_loop(lambda: main(twice=False))
    on_a_loop(lambda: main(twice=True))


def test_where_there_is_nothing_to_do_a_service_does_nothing() -> None:
    async def main() -> None:
        running = asyncio.create_task(NothingToDo("nothing").run())
        await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    on_a_loop(main)
