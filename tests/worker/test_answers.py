"""Errors that a server answers with, its connections being well: told as what they are, waited out if they may pass."""

from __future__ import annotations

import threading

import psycopg
import pytest

from dbjobq import ConfigError, JobQueue, PostgresStorage, StorageUnavailable, Worker, job
from tests.storage.database import Database
from tests.support.waiting import ended, until
from tests.worker.conftest import Events, Start

REFUSING = """
    create function dbjobq.refuse() returns trigger language plpgsql
        as $$ begin raise exception 'not today' using errcode = '{}'; end $$;
    create trigger refuse before insert on dbjobq.lease execute function dbjobq.refuse();
"""
"""Has each claim end with this error."""


@job
def work() -> str:
    return "done"


def test_claims_that_a_publication_makes_the_server_refuse_are_told_so_once_and_go_on_when_it_is_gone(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    running, go_on = threading.Event(), threading.Event()

    @job
    def long() -> str:
        running.set()
        go_on.wait(60)
        return "kept"

    database.rows("alter table dbjobq.ready replica identity default")  # as the first release had it
    start(lease=30.0, concurrency=2)
    first = queue.enqueue(long)
    assert running.wait(60)
    database.rows("create publication everything for all tables")
    second = queue.enqueue(work)
    until(lambda: events.of("database.refuses"), 30)
    go_on.set()
    ended(queue, [first], timeout=30)  # what the server does take is written meanwhile
    with pytest.raises(StorageUnavailable, match=r"^PostgreSQL answered: .*replica identity") as refused:
        queue.dequeue()
    assert refused.value.answered
    database.rows("drop publication everything")
    ended(queue, [second], timeout=30)
    until(lambda: events.of("database.restored"), 30)
    (line,) = events.of("database.refuses")
    assert "PostgreSQL answered: cannot delete from table" in vars(line)["error"]
    assert not events.of("database.lost")


@pytest.mark.parametrize("state", ["55000", "53100", "XX000", "XX002"])
def test_what_may_pass_is_waited_out(
    start: Start, queue: JobQueue, database: Database, events: Events, state: str
) -> None:
    database.connection.execute(REFUSING.format(state).encode())
    worker = start(lease=30.0)
    job_id = queue.enqueue(work)
    until(lambda: events.of("database.refuses"), 30)
    assert vars(events.of("database.refuses")[0])["error"] == "PostgreSQL answered: not today"
    database.rows("drop trigger refuse on dbjobq.lease")
    ended(queue, [job_id], timeout=30)
    assert worker.error is None
    assert not events.of("database.lost")


@pytest.mark.parametrize("state", ["P0001", "0A000", "42501"])
def test_what_does_not_pass_by_itself_ends_a_worker_in_words(
    queue: JobQueue, dsn: str, database: Database, events: Events, state: str
) -> None:
    database.connection.execute(REFUSING.format(state).encode())
    queue.enqueue(work)
    with PostgresStorage(dsn) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        worker._worker_thread.join(30)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(worker.error, ConfigError)
    assert isinstance(worker.error.__cause__, psycopg.Error)
    assert "not today" in str(worker.error)
    (failed,) = events.of("worker.failed")
    assert failed.exc_info is None  # no unexpected error
