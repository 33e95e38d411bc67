"""Workers that are quick to notice, and ended when the test is."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from dbjobq import JobQueue, Worker
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.sqlite.session import SqliteSession
from dbjobq.storage.values import Answer, Exchange, Outcome
from dbjobq.storage.worker_port import Session
from tests.storage.database import Database, database
from tests.support.process import Note, WorkerProcess, read_diary

__all__ = ["LASTING", "Blocker", "Events", "Processes", "Start", "database"]

LASTING: Final = 200.0
"""Seconds that a handler's misdeed lasts unless its test ends it: longer than any test waits for anything."""

LISTENERS: Final = "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%'"


class Start(Protocol):
    """Starts a worker on the test's queue, or another; `settings` are the worker's."""

    def __call__(self, job_queue: JobQueue | None = None, /, **settings: Any) -> Worker: ...


@pytest.fixture
def start(queue: JobQueue) -> Iterator[Start]:
    """Starts workers; at the end they must still be well, and are stopped."""
    workers: list[Worker] = []
    usual: dict[str, Any] = {"poll_interval": 0.05, "max_poll_interval": 0.5, "shutdown_timeout": 5.0}

    def start(job_queue: JobQueue | None = None, /, **settings: Any) -> Worker:
        worker = Worker(job_queue or queue, **{**usual, **settings})
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.hasten()
    for worker in workers:
        worker.stop()
        worker._worker_thread.join(60)  # a loop that was blocked may just have come back
    assert [worker.error for worker in workers if worker.error is not None] == []
    assert not any(worker._worker_thread.is_alive() for worker in workers)


class Blocker:
    """What a test's handlers block on, and how it is ended."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()

    def block(self) -> None:
        """Block the thread that calls."""
        self.began.set()
        self.ended.wait(LASTING)

    def end(self) -> None:
        self.ended.set()


@pytest.fixture
def blocker(start: Start) -> Iterator[Blocker]:
    """Ended before the workers are."""
    blocker = Blocker()
    yield blocker
    blocker.end()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of event loop: uvloop is used where it is installed."""
    return use_loop(request.param, monkeypatch)


def use_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have workers use this kind of event loop."""
    if name == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    else:
        pytest.importorskip("uvloop")
    return name


class Events:
    """What workers have logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, event: str) -> list[logging.LogRecord]:
        """The lines of one event."""
        return [record for record in tuple(self._caplog.records) if record.getMessage() == event]

    def loud(self) -> list[str]:
        """The lines above INFO."""
        return [record.getMessage() for record in tuple(self._caplog.records) if record.levelno > logging.INFO]

    def jobs(self, event: str) -> list[str]:
        """The ids of the jobs in them."""
        return [vars(record)["job_id"] for record in self.of(event)]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
    """What workers log, from INFO on."""
    caplog.set_level(logging.INFO, "dbjobq")
    return Events(caplog)


@pytest.fixture
def claims(backend: str, monkeypatch: pytest.MonkeyPatch, cheap_looks: None) -> list[float]:
    """The moments at which workers of this process ask for jobs, as they come: none more because a look was slow."""
    moments: list[float] = []

    def note(_: Sequence[Outcome], want: int) -> None:
        if want:
            moments.append(time.monotonic())

    overhear(backend, monkeypatch, note)
    return moments


@pytest.fixture
def returned(backend: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs that workers of this process return to their queue, as they do so."""
    ids: list[str] = []

    def note(outcomes: Sequence[Outcome], _: int) -> None:
        ids.extend(outcome.claim.id for outcome in outcomes if outcome.event == "release")

    overhear(backend, monkeypatch, note)
    return ids


def overhear(backend: str, monkeypatch: pytest.MonkeyPatch, note: Callable[[Sequence[Outcome], int], None]) -> None:
    """Have `note` told, before each exchange of this process's workers, its outcomes and how many jobs it asks for."""
    kind = PostgresSession if backend == "postgres" else SqliteSession
    original: Any = kind.step

    async def step(self: Session, exchange: Exchange) -> Answer:
        note(exchange.outcomes, exchange.want)
        answer: Answer = await original(self, exchange)
        return answer

    monkeypatch.setattr(kind, "step", step)


class Processes:
    """Makes worker processes.

    Args:
        address: Where their jobs are, unless they are told otherwise.
        folder: For their logs and the diary.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._folder = address, folder
        self.made: list[WorkerProcess] = []

    def start(self, **settings: Any) -> WorkerProcess:
        """Start one."""
        usual = {"poll_interval": 0.05, "max_poll_interval": 0.5, "lease": 2.0, "shutdown_timeout": 5}
        log = self._folder / f"worker-{len(self.made)}.log"
        process = WorkerProcess({"address": self._address, **usual, **settings}, self._folder / "diary", log)
        self.made.append(process)
        return process

    def diary(self, word: str | None = None) -> list[Note]:
        """What their handlers did."""
        return [note for note in read_diary(self._folder / "diary") if word is None or note.word == word]

    def close(self) -> None:
        for process in self.made:
            with suppress(ProcessLookupError):
                process.close()


@pytest.fixture
def processes(address: str, tmp_path: Path) -> Iterator[Processes]:
    """Makes worker processes; they are ended with the test."""
    processes = Processes(address, tmp_path)
    yield processes
    processes.close()


@pytest.fixture
def listeners(database: Database) -> Callable[[], list[int]]:
    """The process ids of the connections that listen."""

    def found() -> list[int]:
        return [row[0] for row in database.rows(LISTENERS)]

    return found
