"""Starting: a database that is away, not ready, or will not have this worker."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import time

import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import ConfigError, JobQueue, PostgresStorage, SchemaError, Worker, job
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.storage.postgres.schema_version import HEAD
from tests.storage.database import Database
from tests.support.faultproxy import proxied
from tests.support.waiting import ended, lasting, until
from tests.worker.conftest import LASTING, Events, Start


def assert_ended_with(worker: Worker, error: type[Exception], events: Events, said: str) -> None:
    worker._worker_thread.join(60)
    assert not worker._worker_thread.is_alive()
    assert isinstance(worker.error, error)
    assert said in str(worker.error)
    critical = [record for record in events.of("worker.failed") if record.levelno == logging.CRITICAL]
    assert len(critical) == 1
    assert said in vars(critical[0])["error"]
    assert critical[0].exc_info is None
    worker.stop()


def test_a_worker_started_while_the_database_is_away_begins_when_it_comes(
    start: Start, queue: JobQueue, dsn: str, events: Events
) -> None:
    @job
    def hello() -> None: ...

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        proxy.refuse()
        worker = start(JobQueue(storage))
        job_id = queue.enqueue(hello)
        until(lambda: events.of("database.unavailable"))
        lasting(worker._worker_thread.is_alive, 0.5)
        proxy.heal()
        ended(queue, [job_id])
        assert len(events.of("database.unavailable")) == 1
        worker.stop()


def test_a_worker_that_waits_for_its_database_stops_at_once(dsn: str) -> None:
    with PostgresStorage(make_conninfo(dsn, host="127.0.0.1", port=1)) as storage:
        worker = Worker(JobQueue(storage), shutdown_timeout=LASTING)
        worker.start()
        lasting(worker._worker_thread.is_alive, 0.5)
        before = time.monotonic()
        worker.stop()
        assert time.monotonic() - before < LASTING / 2
        assert not worker._worker_thread.is_alive()
        assert worker.error is None


@pytest.mark.slow
def test_a_worker_that_connects_into_a_black_hole_stops_in_bounded_time(dsn: str) -> None:
    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        proxy.blackhole()
        worker = Worker(JobQueue(storage), shutdown_timeout=1)
        worker.start()
        until(lambda: proxy.accepted)
        before = time.monotonic()
        worker.stop()
        assert time.monotonic() - before < LASTING / 2
        proxy.heal()
        worker._worker_thread.join(60)


def test_without_tables_the_thread_ends_and_says_what_to_do(empty_dsn: str, events: Events) -> None:
    with PostgresStorage(empty_dsn) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        assert_ended_with(worker, SchemaError, events, "run `dbjobq migrate`")


def test_with_tables_of_a_newer_version_the_thread_ends_and_says_what_to_do(
    dsn: str, database: Database, events: Events
) -> None:
    database.rows("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
    with PostgresStorage(dsn) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        assert_ended_with(worker, SchemaError, events, "upgrade dbjobq")


def test_with_tables_of_an_older_version_the_thread_ends_and_says_what_to_do(
    dsn: str, monkeypatch: pytest.MonkeyPatch, events: Events
) -> None:
    monkeypatch.setattr("dbjobq.storage.postgres.schema_version.HEAD", f"{int(HEAD) + 1:04}")
    with PostgresStorage(dsn) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        assert_ended_with(worker, SchemaError, events, "run `dbjobq migrate`")


def test_tables_that_go_away_under_a_worker_end_it(dsn: str, database: Database, events: Events) -> None:
    with PostgresStorage(dsn) as storage:
        worker = Worker(JobQueue(storage), poll_interval=0.05, max_poll_interval=0.1)
        worker.start()
        until(lambda: database.value("select count(*) from dbjobq.worker") == 1)
        database.rows("set deadlock_timeout = '1min'")  # the worker's statement gives way, not this one
        database.rows("drop schema dbjobq cascade")
        assert_ended_with(worker, SchemaError, events, "run `dbjobq migrate`")


def test_a_database_that_does_not_exist_ends_the_worker(dsn: str, events: Events) -> None:
    with PostgresStorage(make_conninfo(dsn, dbname="no_such_database")) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        assert_ended_with(worker, ConfigError, events, "no_such_database")


@pytest.fixture(scope="module")
def guarded() -> str:
    """A DSN that asks for a password."""
    server = EmbeddedPostgres(tcp=True)
    return server.dsn(tcp=True)


def test_a_wrong_password_ends_the_worker_and_is_not_logged(guarded: str, events: Events) -> None:
    with PostgresStorage(make_conninfo(guarded, password="swordfish")) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        assert_ended_with(worker, ConfigError, events, "password authentication failed")
    assert "swordfish" not in str(worker.error)


def test_a_role_without_rights_ends_the_worker(dsn: str, database: Database, events: Events) -> None:
    name = f"guest_{database.connection.info.dbname}"
    role = make_conninfo(dsn, options=f"-c role={name}")
    with database.connection.cursor() as cursor:
        cursor.execute(f'create role "{name}"'.encode())
    try:
        with PostgresStorage(role) as storage:
            worker = Worker(JobQueue(storage))
            worker.start()
            assert_ended_with(worker, ConfigError, events, "permission denied")
    finally:
        with database.connection.cursor() as cursor:
            cursor.execute(f'drop role "{name}"'.encode())
