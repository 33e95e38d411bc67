"""Callers' connections that are in no transaction, or in a pipeline; and what happens in a transaction of theirs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, SchemaError
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from dbjobq.storage.postgres import callers
from dbjobq.storage.postgres.callers import PsycopgCaller
from tests.queue.jobs import anything
from tests.queue.test_connections import engine, sqlalchemy_async_connection, sqlalchemy_connection, url
from tests.storage.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    Opened = Callable[[str], AbstractContextManager[Any]]
    AsyncOpened = Callable[[str], AbstractAsyncContextManager[Any]]

IMPATIENT = "-c lock_timeout=500ms"


@contextmanager
def blocked(dsn: str) -> Generator[None]:
    """While it lasts, nobody can say when a job is due: the second COPY of a bulk with a delay fails."""
    with psycopg.connect(dsn) as connection:
        connection.execute("lock table dbjobq.scheduled in access exclusive mode")
        yield
        connection.rollback()


# Autocommit.


def test_a_connection_in_autocommit_is_refused_unless_a_transaction_is_open(plain: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        inside = plain.options(connection=connection)
        for call in (lambda: inside.enqueue(anything), lambda: inside.enqueue_many(anything, [{}])):
            with pytest.raises(ValueError, match=r"^connection=Connection: .*autocommit.*connection\.transaction\(\)"):
                call()
        with pytest.raises(ValueError, match="autocommit"):
            plain.storage.finish([], connection).run()
        assert plain.count() == 0
        with connection.transaction():
            ids = [inside.enqueue(anything), *inside.enqueue_many(anything, [{}])]
            assert plain.count() == 0
        connection.execute("begin")
        ids.append(inside.enqueue(anything))
        assert plain.count() == 2
        connection.execute("commit")
        assert connection.autocommit
    assert [job.id for job in plain.list_jobs()] == ids[::-1]


def test_an_async_connection_in_autocommit_is_refused_unless_a_transaction_is_open(
    storage: PostgresStorage, dsn: str
) -> None:
    async def main() -> None:
        async with (
            AsyncJobQueue(storage) as queue,
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        ):
            inside = queue.options(connection=connection)
            with pytest.raises(ValueError, match="autocommit"):
                await inside.enqueue(anything)
            with pytest.raises(ValueError, match="autocommit"):
                await inside.enqueue_many(anything, [{}])
            async with connection.transaction():
                await inside.enqueue(anything)
                await inside.enqueue_many(anything, [{}])
                assert await queue.count() == 0
            assert await queue.count() == 2

    asyncio.run(main())


@pytest.mark.parametrize("opened", [psycopg.connect, sqlalchemy_connection])
def test_many_jobs_that_failed_leave_the_callers_transaction_usable(
    plain: JobQueue, dsn: str, opened: Opened, database: Database
) -> None:
    """They are in a savepoint of their own."""
    with opened(make_conninfo(dsn, options=IMPATIENT)) as connection:
        inside = plain.options(connection=connection)
        inside.enqueue(anything, n=1)
        with blocked(dsn), pytest.raises(psycopg.errors.LockNotAvailable):
            inside.options(delay=60).enqueue_many(anything, [{"n": 2}])
        inside.enqueue(anything, n=3)
    assert [job.data["n"] for job in plain.list_jobs()] == [3, 1]
    assert database.value("select count(*) from dbjobq.job") == 2


@contextmanager
def autocommit_connection(dsn: str) -> Generator[Any]:
    with engine(dsn) as made, made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def autocommit_session(dsn: str) -> Generator[Any]:
    with engine(dsn) as made, Session(made.execution_options(isolation_level="AUTOCOMMIT")) as session:
        yield session


@contextmanager
def autocommit_driver(dsn: str) -> Generator[Any]:
    """One whose driver commits by itself, though SQLAlchemy was not told."""
    made = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(dsn, autocommit=True),
        poolclass=sqlalchemy.NullPool,
    )
    with made.connect() as connection:
        yield connection


@asynccontextmanager
async def autocommit_async_connection(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    made = create_async_engine(url(dsn), isolation_level="AUTOCOMMIT")
    async with made.connect() as connection:
        yield connection
    await made.dispose()


@asynccontextmanager
async def autocommit_async_session(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    made = create_async_engine(url(dsn), isolation_level="AUTOCOMMIT")
    async with AsyncSession(made) as session:
        yield session
    await made.dispose()


@pytest.mark.parametrize("opened", [autocommit_connection, autocommit_session, autocommit_driver])
def test_sqlalchemy_in_autocommit_is_refused(plain: JobQueue, dsn: str, opened: Opened) -> None:
    with opened(dsn) as connection:
        inside = plain.options(connection=connection)
        with pytest.raises(ValueError, match=r"^connection=.*autocommit.*open one"):
            inside.enqueue(anything)
        with pytest.raises(ValueError, match="autocommit"):
            inside.enqueue_many(anything, [{}])
    assert plain.count() == 0


@pytest.mark.parametrize("opened", [autocommit_async_connection, autocommit_async_session])
def test_async_sqlalchemy_in_autocommit_is_refused(storage: PostgresStorage, dsn: str, opened: AsyncOpened) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            async with opened(dsn) as connection:
                inside = queue.options(connection=connection)
                with pytest.raises(ValueError, match="autocommit"):
                    await inside.enqueue(anything)
                with pytest.raises(ValueError, match="autocommit"):
                    await inside.enqueue_many(anything, [{}])
            assert await queue.count() == 0

    asyncio.run(main())


# The sync side of an async session.


@pytest.mark.parametrize("commit", [True, False])
def test_all_works_in_run_sync(plain: JobQueue, dsn: str, commit: bool) -> None:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    def write(session: Session) -> list[str]:
        inside = plain.options(connection=session, queue="of this test")
        return [
            inside.enqueue(anything, n=0),
            inside.options(unique_key="k").enqueue(anything, n=1),
            *inside.enqueue_many(anything, ({"n": n} for n in range(2, 600))),
        ]

    async def main() -> list[str]:
        made = create_async_engine(url(dsn))
        async with AsyncSession(made) as session:
            ids = await session.run_sync(write)
            await (session.commit() if commit else session.rollback())
        await made.dispose()
        return ids

    ids = asyncio.run(main())
    assert [job.id for job in plain.list_jobs()] == (ids[::-1] if commit else [])


# Two-phase commit: a transaction that has notified cannot be prepared, so none notifies, whoever sleeps.


class Quiet:
    """Runs SQL; what it is to end on is an open transaction of this kind, which is then prepared and committed."""

    @staticmethod
    @contextmanager
    def psycopg(dsn: str) -> Generator[Any]:
        with psycopg.connect(dsn) as connection:
            connection.tpc_begin("of this test")
            yield connection
            connection.tpc_prepare()
            connection.tpc_commit()

    @staticmethod
    @contextmanager
    def connection(dsn: str) -> Generator[Any]:
        with engine(dsn) as made, made.connect() as connection:
            transaction = connection.begin_twophase()
            yield connection
            transaction.prepare()
            transaction.commit()

    @staticmethod
    @contextmanager
    def session(dsn: str) -> Generator[Any]:
        with engine(dsn) as made, Session(made, twophase=True) as session:
            yield session
            session.commit()


def enqueue_each_way(queue: Any, connection: Any) -> list[str]:
    inside = queue.options(connection=connection)
    return [
        inside.enqueue(anything),
        inside.options(delay=60).enqueue(anything),
        inside.options(unique_key="k").enqueue(anything),
        *inside.enqueue_many(anything, [{}]),
    ]


@pytest.fixture(scope="module")
def preparing() -> Iterator[str]:
    """A database on a server that prepares transactions."""
    with EmbeddedPostgres(settings={"max_prepared_transactions": "2"}, tempdir="/dev/shm") as server:
        migrate(server.dsn())
        yield server.dsn()


@pytest.mark.parametrize("asleep", [True, False])
@pytest.mark.parametrize("opened", [Quiet.psycopg, Quiet.connection, Quiet.session])
def test_a_transaction_of_two_phases_can_be_prepared_whoever_sleeps(
    preparing: str, opened: Opened, asleep: bool
) -> None:
    with JobQueue(preparing) as queue, Database(preparing) as database:
        queue.enqueue(anything)
        database.rows("update dbjobq.queue set wanted = %s", asleep)
        with opened(preparing) as connection:
            ids = enqueue_each_way(queue, connection)
        assert [job.id for job in queue.list_jobs(limit=len(ids))] == ids[::-1]
        for job_id in ids:
            queue.cancel(job_id)  # which frees the unique key


@pytest.mark.parametrize("asleep", [True, False])
def test_an_async_transaction_of_two_phases_can_be_prepared_whoever_sleeps(preparing: str, asleep: bool) -> None:
    async def main() -> None:
        async with AsyncJobQueue(preparing) as queue, await psycopg.AsyncConnection.connect(preparing) as connection:
            await queue.enqueue(anything)
            with Database(preparing) as database:
                database.rows("update dbjobq.queue set wanted = %s", asleep)
            await connection.tpc_begin("of this test")
            inside = queue.options(connection=connection)
            ids = [await inside.enqueue(anything), *await inside.enqueue_many(anything, [{}])]
            await connection.tpc_prepare()
            await connection.tpc_commit()
            assert [job.id for job in await queue.list_jobs(limit=2)] == ids[::-1]

    asyncio.run(main())


def test_jobs_that_are_to_notify_nobody_do_not(plain: JobQueue, dsn: str, database: Database) -> None:
    plain.enqueue(anything)
    database.rows("update dbjobq.queue set wanted = true")
    database.rows("listen dbjobq")
    quiet = plain.options(notify=False)
    with psycopg.connect(dsn, options="-c default_transaction_isolation=serializable") as connection:
        ids = enqueue_each_way(quiet, connection)
    ids += [quiet.enqueue(anything), quiet.options(delay=60).enqueue(anything), *quiet.enqueue_many(anything, [{}])]
    plain.enqueue(anything)
    assert len(list(database.connection.notifies(timeout=30, stop_after=1))) == 1
    assert not list(database.connection.notifies(timeout=0))
    assert plain.count() == len(ids) + 2
    with pytest.raises(TypeError, match="notify=1"):
        plain.options(notify=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# Pipelines.


@pytest.mark.parametrize("autocommit", [False, True])
def test_in_a_pipeline_a_job_is_written_and_many_are_refused(plain: JobQueue, dsn: str, autocommit: bool) -> None:
    with psycopg.connect(dsn, autocommit=autocommit) as connection:
        inside = plain.options(connection=connection)
        with connection.pipeline():
            first = inside.enqueue(anything, n=1)
            with pytest.raises(ValueError, match="pipeline"):
                inside.enqueue_many(anything, [{"n": 2}])
            assert inside.options(unique_key="k").enqueue(anything, n=3) != first
    assert [job.data["n"] for job in plain.list_jobs()] == [3, 1]


def test_in_an_async_pipeline_a_job_is_written_and_many_are_refused(storage: PostgresStorage, dsn: str) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            async with await psycopg.AsyncConnection.connect(dsn) as connection, connection.pipeline():
                inside = queue.options(connection=connection)
                await inside.enqueue(anything, n=1)
                with pytest.raises(ValueError, match="pipeline"):
                    await inside.enqueue_many(anything, [{"n": 2}])
            assert [job.data["n"] for job in await queue.list_jobs()] == [1]

    asyncio.run(main())


# What fails in a caller's transaction.


def test_missing_tables_are_one_line_through_sqlalchemy_too(empty_dsn: str, dsn: str) -> None:
    with PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        queue.enqueue(anything)
        with sqlalchemy_connection(empty_dsn) as connection:
            with pytest.raises(SchemaError, match="dbjobq migrate") as caught:
                queue.options(connection=connection).enqueue(anything)
            assert "\n" not in str(caught.value)
            connection.rollback()


def test_missing_tables_are_one_line_through_async_sqlalchemy_too(empty_dsn: str, dsn: str) -> None:
    async def main() -> None:
        async with AsyncJobQueue(PostgresStorage(dsn)) as queue:
            await queue.enqueue(anything)
            async with sqlalchemy_async_connection(empty_dsn) as connection:
                with pytest.raises(SchemaError, match="dbjobq migrate"):
                    await queue.options(connection=connection).enqueue(anything)
                await connection.rollback()

    asyncio.run(main())


def test_a_conflict_in_the_callers_transaction_is_raised_as_it_comes(plain: JobQueue, dsn: str) -> None:
    """Whoever repeats the transaction looks for the driver's own errors, or SQLAlchemy's."""
    plain.enqueue(anything)
    address = make_conninfo(dsn, options=IMPATIENT)
    with blocked(dsn):
        with pytest.raises(psycopg.errors.LockNotAvailable), psycopg.connect(address) as connection:
            plain.options(connection=connection, delay=60).enqueue(anything)
        with pytest.raises(OperationalError, match="lock timeout"), sqlalchemy_connection(address) as sa:
            plain.options(connection=sa, delay=60).enqueue(anything)
    assert plain.count() == 1


# Kinds of connections.


class Wrapper:
    """A connection of another library's, which has psycopg's in it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection


class WrapperCaller(PsycopgCaller):
    @classmethod
    def of(cls, connection: object, *, atomic: bool) -> PsycopgCaller | None:
        return super().of(connection.connection, atomic=atomic) if isinstance(connection, Wrapper) else None


def test_a_kind_of_connection_is_added_as_a_class(plain: JobQueue, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(dsn) as connection:
        inside = plain.options(connection=Wrapper(connection))
        with pytest.raises(TypeError, match=r"connection=Wrapper: .*none of these"):
            inside.enqueue(anything)
        monkeypatch.setattr(callers, "SYNC_KINDS", [*callers.SYNC_KINDS, WrapperCaller])
        ids = [inside.enqueue(anything), *inside.enqueue_many(anything, [{}, {}])]
        assert plain.count() == 0
    assert {job.id for job in plain.list_jobs()} == set(ids)
