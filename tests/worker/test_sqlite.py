"""Workers on SQLite: no NOTIFY, one writer at a time, no transactional jobs."""

from __future__ import annotations

import sqlite3
import threading
import time
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbjobq import JobQueue, job
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage
from dbjobq.storage.sqlite import engine
from tests.support.waiting import ended, until
from tests.worker.cancelling import SELDOM, seconds_until_told
from tests.worker.conftest import LASTING, Events, Start


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def elsewhere(address: str) -> Iterator[JobQueue]:
    """The same queue, as another process has it: what is done there tells nobody here."""
    with SQLAlchemyStorage(address) as storage:
        yield JobQueue(storage)


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_transactional_job_fails_with_not_supported_and_the_worker_goes_on(
    start: Start, queue: JobQueue, kind: str
) -> None:
    ran: list[int] = []

    @job(transactional=True)
    def write() -> None:
        ran.append(1)

    @job(transactional=True)
    async def awrite() -> None:
        ran.append(1)

    @job
    def hello() -> None: ...

    start()
    job_id = queue.enqueue(write if kind == "def" else awrite)
    ended(queue, [job_id], "failed")
    found = queue.get_job(job_id)
    assert found is not None
    assert found.attempts == 1
    assert (found.error or "").startswith("NotSupported: SQLAlchemyStorage on SQLite does not support 'transactional'")
    ended(queue, [queue.enqueue(hello)])
    assert ran == []


def test_what_another_process_enqueues_is_found_by_polling(
    start: Start, queue: JobQueue, elsewhere: JobQueue, claims: list[float]
) -> None:
    @job
    def hello() -> None: ...

    start(poll_interval=0.2, max_poll_interval=0.4)
    assert elsewhere.count() == 0  # it is connected
    until(lambda: len(claims) > 3)
    job_id = elsewhere.enqueue(hello)
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    assert found.started_at is not None
    # By the look that took it, which came after a whole wait as those before it.
    ago = time.time() - found.started_at.timestamp()
    took = bisect(claims, time.monotonic() - ago + 0.002) - 1
    # Two clocks tell when that was: it may seem to be the look after it, which follows at once.
    assert max(claims[took] - claims[took - 1], claims[took - 1] - claims[took - 2]) > 0.39


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_another_process_cancels_is_told_before_a_heartbeat(
    start: Start, queue: JobQueue, elsewhere: JobQueue, kind: str
) -> None:
    start(lease=SELDOM)
    seconds_until_told(queue, kind, elsewhere.cancel)


def test_a_worker_on_a_database_in_memory_is_woken_by_every_thread(start: Start) -> None:
    @job
    def double(n: int) -> int:
        return 2 * n

    with SQLAlchemyStorage("sqlite:///:memory:") as storage:
        queue = JobQueue(storage)
        workers = [start(queue, poll_interval=200.0, max_poll_interval=200.0) for _ in range(2)]
        ended(queue, [queue.enqueue(double, n=n) for n in range(5)])
        threads = [threading.Thread(target=queue.enqueue, args=[double], kwargs={"n": n}) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: queue.count("completed") == 10)
        for worker in workers:
            worker.stop()


def test_a_database_that_stays_locked_costs_time_and_no_job(
    start: Start, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    job_id = queue.enqueue(hold)
    monkeypatch.setattr(engine, "WRITER_WAIT", 0.1)
    with SQLAlchemyStorage(f"sqlite:///{tmp_path}/jobs.db") as impatient:
        worker = start(JobQueue(impatient), lease=60.0)
        assert began.wait(60)
        other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        other.execute("begin immediate")
        go_on.set()
        until(lambda: events.of("database.lost"))
        other.close()
        ended(queue, [job_id])
        worker.stop()
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.result, found.attempts) == ("kept", 0)
