"""Refusals that pass: a worker that has worked waits for their end; one that has not ends with a line that says why."""

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import marshal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq import ConfigError, JobQueue, PostgresStorage, StorageUnavailable, Worker, job, schema
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.storage.base import Recipe
from dbjobq.storage.postgres.connect.way import Way
from tests.conftest import Postgres
from tests.support.waiting import ended, until
from tests.worker.conftest import Events, Start


class Admin(NamedTuple):
    """Who shuts others out."""

    connection: psycopg.Connection[Any]
    database: str
    """Theirs."""
    role: str
    """Theirs, too."""

    def do(self, statement: str, *names: str) -> None:
        self.connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # pyright: ignore[reportArgumentType]

    def kick(self) -> None:
        """End all of the database's connections."""
        others = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = any (%s)"
        self.connection.execute(others, [[self.database, f"{self.database}_old"]])

    def rename(self, old: str, new: str) -> None:
        self.do("alter database {} allow_connections false", old)
        self.kick()
        self.do("alter database {} rename to {}", old, new)
        self.do("alter database {} allow_connections true", new)


@pytest.fixture
def admin(postgres: Postgres, dsn: str) -> Iterator[Admin]:
    role = f"refused_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        admin = Admin(connection, str(conninfo_to_dict(dsn)["dbname"]), role)
        connection.execute(sql.SQL("create role {} superuser login password 'one'").format(sql.Identifier(role)))
        yield admin
        admin.kick()
        admin.do("drop role {}", role)


@pytest.fixture
def theirs(dsn: str, admin: Admin) -> str:
    """The DSN of the role that is shut out."""
    return make_conninfo(dsn, user=admin.role, password="one")


@pytest.fixture
def storage(theirs: str) -> Iterator[PostgresStorage]:
    with PostgresStorage(theirs, timeout=1.0) as storage:
        yield storage


SHUT: dict[str, tuple[Callable[[Admin], None], Callable[[Admin], None]]] = {
    "does not exist": (
        lambda a: a.rename(a.database, f"{a.database}_old"),
        lambda a: a.rename(f"{a.database}_old", a.database),
    ),
    "not currently accepting connections": (
        lambda a: a.do("alter database {} allow_connections false", a.database),
        lambda a: a.do("alter database {} allow_connections true", a.database),
    ),
    "not permitted to log in": (
        lambda a: a.do("alter role {} nologin", a.role),
        lambda a: a.do("alter role {} login", a.role),
    ),
    "too many connections for role": (
        lambda a: a.do("alter role {} nosuperuser connection limit 0", a.role),
        lambda a: a.do("alter role {} superuser connection limit -1", a.role),
    ),
}


@contextmanager
def shut(admin: Admin, said: str) -> Generator[None]:
    close, reopen = SHUT[said]
    close(admin)
    try:
        admin.kick()
        yield
    finally:
        reopen(admin)


@job
def work() -> str:
    return "done"


@pytest.mark.parametrize("said", [said for said in SHUT if "too many" not in said])
def test_a_worker_that_has_worked_goes_on_when_a_refusal_has_passed(
    start: Start, queue: JobQueue, theirs: str, admin: Admin, events: Events, said: str
) -> None:
    worker = start(lease=30.0)
    ended(queue, [queue.enqueue(work)])
    with shut(admin, said):
        lines = ("database.lost", "database.unavailable")
        until(lambda: any(said in vars(line)["error"] for event in lines for line in events.of(event)))
        with pytest.raises(StorageUnavailable):
            queue.get_job(str(uuid4()))
    until(lambda: events.of("database.restored"))
    ended(JobQueue(queue.storage), [until(lambda: enqueued(queue))])
    assert worker.error is None


def enqueued(queue: JobQueue) -> str:
    try:
        return queue.enqueue(work)
    except StorageUnavailable:
        return ""


@pytest.mark.parametrize("said", [said for said in SHUT if "too many" not in said])
def test_a_worker_that_never_worked_ends_with_the_servers_word(
    theirs: str, admin: Admin, events: Events, said: str
) -> None:
    with shut(admin, said), PostgresStorage(theirs) as storage:
        worker = Worker(JobQueue(storage))
        worker.start()
        worker._worker_thread.join(60)  # pyright: ignore[reportPrivateUsage]
    assert isinstance(worker.error, ConfigError)
    assert said in str(worker.error)
    assert len(events.of("worker.failed")) == 1


def test_a_server_that_is_full_has_answered(theirs: str, admin: Admin) -> None:
    said = "too many connections for role"
    with (
        shut(admin, said),
        PostgresStorage(theirs) as storage,
        pytest.raises(StorageUnavailable, match=rf"^PostgreSQL answered: .*{said}"),
    ):
        storage.check().run()


class Vault:
    """Gives out the password that is valid."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.password = dsn, "one"
        self.threads: list[str] = []
        self.error: Exception | None = None

    def conninfo(self) -> str:
        self.threads.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        return make_conninfo(self.dsn, password=self.password)


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The DSN of a server of one's own, which asks for passwords."""
    with EmbeddedPostgres(tcp=True, settings={"fsync": "off"}) as server:
        schema.migrate(server.dsn())
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create role app superuser login")
        yield make_conninfo(server.dsn(tcp=True), user="app")


@contextmanager
def password(guarded: str, new: LiteralString) -> Generator[None]:
    """Change the role's password, and end its connections."""
    with psycopg.connect(guarded, user="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("alter role app password {}").format(new))
        connection.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'app'")
        yield


def test_a_password_that_changes_is_asked_for_each_connection_off_the_event_loop(
    start: Start, guarded: str, events: Events
) -> None:
    vault = Vault(guarded)
    with PostgresStorage(vault.conninfo) as storage:
        queue = JobQueue(storage)
        assert vault.threads == []
        with password(guarded, "one"):
            worker = start(queue, lease=30.0)
            ended(queue, [queue.enqueue(work)])
        vault.password = "two"
        with password(guarded, "two"):
            ended(queue, [until(lambda: enqueued(queue))])
            until(lambda: events.of("listener.restored"))
        assert "dbjobq-worker" not in vault.threads
        assert "dbjobq-conninfo" in vault.threads
        assert not events.of("worker.failed")
        worker.stop()


def test_a_password_that_is_changed_for_a_while_ends_no_worker_that_has_worked_and_one_that_has_not(
    start: Start, guarded: str, events: Events
) -> None:
    said = "password authentication failed"
    with PostgresStorage(make_conninfo(guarded, password="one")) as storage:
        queue = JobQueue(storage)
        with password(guarded, "one"):
            worker = start(queue, lease=30.0)
            ended(queue, [queue.enqueue(work)])
        with password(guarded, "two"):
            until(lambda: any(said in vars(line)["error"] for line in events.of("database.unavailable")))
            with PostgresStorage(make_conninfo(guarded, password="one")) as other:
                new = Worker(JobQueue(other))
                new.start()
                new._worker_thread.join(60)  # pyright: ignore[reportPrivateUsage]
                assert isinstance(new.error, ConfigError)
                assert said in str(new.error)
        with password(guarded, "one"):
            ended(queue, [until(lambda: enqueued(queue))])
        worker.stop()


def test_a_source_of_passwords_that_fails_is_waited_for_and_its_word_is_given_without_them(
    start: Start, theirs: str, events: Events
) -> None:
    vault = Vault(theirs)
    vault.error = RuntimeError("no answer from https://app:hunter2@vault")
    with PostgresStorage(vault.conninfo) as storage:
        queue = JobQueue(storage)
        with pytest.raises(StorageUnavailable, match=r"Vault.conninfo raised RuntimeError: .*https://app:\*\*\*@vault"):
            queue.enqueue(work)
        worker = start(queue)
        until(lambda: events.of("database.unavailable"))
        vault.error = None
        ended(queue, [queue.enqueue(work)])
        worker.stop()


async def a_coroutine_function() -> str:
    return ""


@pytest.mark.parametrize("function", [lambda: None, a_coroutine_function, lambda: "host=a b"])
def test_what_is_no_dsn_is_refused_in_words(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"conninfo=.* returned|cannot be read"):
        Way(function).dsn()


def where_to() -> str:
    return "host=from_where_to"


def test_the_process_of_a_job_asks_the_same_function() -> None:
    recipe = PostgresStorage(where_to).recipe()
    there = Recipe(*marshal.loads(marshal.dumps(tuple(recipe)))).make()
    assert isinstance(there, PostgresStorage)
    assert there.connections.way.given is where_to
    with pytest.raises(ConfigError, match=r"executor='process'.*at the top of a module"):
        PostgresStorage(lambda: "").recipe()


def test_a_pool_and_a_listener_may_have_functions_of_their_own(dsn: str) -> None:
    asked: list[str] = []

    def conninfo() -> str:
        asked.append("conninfo")
        return dsn

    def listen_conninfo() -> str:
        asked.append("listen")
        return dsn

    with PostgresStorage(conninfo, listen_conninfo=listen_conninfo) as storage:
        queue = JobQueue(storage)
        with Worker(queue, poll_interval=0.05):
            ended(queue, [queue.enqueue(work)])
    assert set(asked) == {"conninfo", "listen"}
    assert "PostgresStorage" in repr(storage)
