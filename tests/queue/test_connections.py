"""Jobs in the caller's own transaction, pools that are shared, and connections that do not work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbjobq import AsyncJobQueue, ConfigError, JobQueue, PostgresStorage, SchemaError, StorageUnavailable
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from tests.queue.jobs import anything
from tests.support.faultproxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from tests.storage.database import Database

    Opened = Callable[[str], AbstractContextManager[Any]]
    AsyncOpened = Callable[[str], AbstractAsyncContextManager[Any]]


class Rollback(Exception):  # noqa: N818 - a word, not an error
    """Ends a caller's transaction without effect."""


# The caller's own transaction. Each opener commits at the end of its block, or rolls back when it raises.


@contextmanager
def psycopg_connection(dsn: str) -> Generator[Any]:
    with psycopg.connect(dsn) as connection:
        yield connection


@contextmanager
def psycopg_dicts(dsn: str) -> Generator[Any]:
    with psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor) as connection:
        connection.row_factory = dict_row  # pyright: ignore[reportAttributeAccessIssue]
        yield connection


@contextmanager
def psycopg_raw(dsn: str) -> Generator[Any]:
    with psycopg.connect(dsn, cursor_factory=psycopg.RawCursor) as connection:
        yield connection


@contextmanager
def psycopg_block(dsn: str) -> Generator[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection, connection.transaction():
        yield connection


@contextmanager
def psycopg_savepoint(dsn: str) -> Generator[Any]:
    with psycopg.connect(dsn) as connection, connection.transaction(), connection.transaction():
        yield connection


@contextmanager
def engine(dsn: str) -> Generator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=sqlalchemy.NullPool
    )
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy_connection(dsn: str) -> Generator[Any]:
    with engine(dsn) as made, made.begin() as connection:
        yield connection


@contextmanager
def sqlalchemy_session(dsn: str) -> Generator[Any]:
    with engine(dsn) as made, Session(made) as session, session.begin():
        yield session


@contextmanager
def sqlalchemy_scoped(dsn: str) -> Generator[Any]:
    with engine(dsn) as made:
        sessions = scoped_session(sessionmaker(made))
        try:
            with sessions.begin():
                yield sessions
        finally:
            sessions.remove()


OPENED = [
    psycopg_connection,
    psycopg_dicts,
    psycopg_raw,
    psycopg_block,
    psycopg_savepoint,
    sqlalchemy_connection,
    sqlalchemy_session,
    sqlalchemy_scoped,
]


def url(dsn: str) -> sqlalchemy.URL:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    named = {name: parts.pop(name) for name in ("dbname", "user", "password") if name in parts}
    return sqlalchemy.URL.create(
        "postgresql+psycopg", named.get("user"), named.get("password"), database=named["dbname"], query=parts
    )


@asynccontextmanager
async def psycopg_async(dsn: str) -> AsyncGenerator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def psycopg_async_raw(dsn: str) -> AsyncGenerator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, cursor_factory=psycopg.AsyncRawCursor) as connection:
        yield connection


@asynccontextmanager
async def sqlalchemy_async_connection(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    made = create_async_engine(url(dsn))
    try:
        async with made.begin() as connection:
            yield connection
    finally:
        await made.dispose()


@asynccontextmanager
async def sqlalchemy_async_session(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    made = create_async_engine(url(dsn))
    try:
        async with AsyncSession(made) as session, session.begin():
            yield session
    finally:
        await made.dispose()


AOPENED = [psycopg_async, psycopg_async_raw, sqlalchemy_async_connection, sqlalchemy_async_session]


def enqueue_all(queue: JobQueue, connection: Any) -> list[str]:
    inside = queue.options(connection=connection, queue="new here")
    return [
        inside.enqueue(anything, n=1, text="100% %s :name"),
        inside.options(unique_key="k").enqueue(anything, n=2),
        inside.options(delay=60).enqueue(anything, n=3),
        *inside.enqueue_many(anything, [{"n": 4}, {"n": 5}]),
    ]


@pytest.mark.parametrize("opened", OPENED)
def test_jobs_exist_if_the_callers_transaction_commits(plain: JobQueue, dsn: str, opened: Opened) -> None:
    with opened(dsn) as connection:
        ids = enqueue_all(plain, connection)
        assert plain.count() == 0
    assert [job.id for job in plain.list_jobs()] == ids[::-1]
    assert [plain.dequeue("new here") is not None for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize("opened", OPENED)
def test_jobs_do_not_exist_if_the_callers_transaction_rolls_back(plain: JobQueue, dsn: str, opened: Opened) -> None:
    with suppress(Rollback), opened(dsn) as connection:
        enqueue_all(plain, connection)
        raise Rollback
    assert plain.count() == 0
    assert plain.dequeue("new here") is None
    one = plain.options(queue="new here", unique_key="k").enqueue(anything)
    job = plain.dequeue("new here")
    assert job is not None
    assert job.id == one


async def aenqueue_all(queue: AsyncJobQueue, connection: Any) -> list[str]:
    inside = queue.options(connection=connection, queue="new here")
    return [
        await inside.enqueue(anything, n=1, text="100% %s :name"),
        await inside.options(unique_key="k").enqueue(anything, n=2),
        await inside.options(delay=60).enqueue(anything, n=3),
        *await inside.enqueue_many(anything, [{"n": 4}, {"n": 5}]),
    ]


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("opened", AOPENED)
def test_jobs_exist_if_and_only_if_the_callers_async_transaction_commits(
    storage: PostgresStorage, dsn: str, opened: AsyncOpened, commit: bool
) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            ids: list[str] = []
            with suppress(Rollback):
                async with opened(dsn) as connection:
                    ids = await aenqueue_all(queue, connection)
                    assert await queue.count() == 0
                    if not commit:
                        raise Rollback
            assert [job.id for job in await queue.list_jobs()] == (ids[::-1] if commit else [])
            assert (await queue.dequeue("new here") is not None) is commit

    asyncio.run(main())


def test_the_callers_own_writes_and_the_job_are_one(plain: JobQueue, dsn: str, database: Database) -> None:
    database.rows("create table orders (id int)")
    with sqlalchemy_session(dsn) as session:
        session.execute(sqlalchemy.text("insert into orders values (7)"))
        plain.options(connection=session).enqueue(anything, order=7)
        assert session.in_transaction()
        assert database.value("select count(*) from orders") == 0
    assert database.value("select count(*) from orders") == plain.count() == 1


def test_an_error_in_the_middle_of_many_leaves_nothing_in_the_callers_transaction(plain: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        with pytest.raises(TypeError, match="job 6000"):
            plain.options(connection=connection).enqueue_many(
                anything, ({"n": n if n < 6000 else object()} for n in range(7000))
            )
        plain.options(connection=connection).enqueue(anything, n=-1)
    assert [job.data for job in plain.list_jobs()] == [{"n": -1}]


def test_a_refused_job_leaves_the_callers_transaction_usable(plain: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        inside = plain.options(connection=connection)
        for refused in ({"n": object()}, {"n": float("nan")}):
            with pytest.raises(TypeError, match="'n'"):
                inside.enqueue(anything, **refused)
        inside.enqueue(anything, n=1)
    assert plain.count() == 1


@pytest.mark.parametrize(
    "wrong", ["a string", 5, object(), sqlalchemy.create_engine("sqlite://")], ids=["str", "int", "object", "engine"]
)
def test_what_is_no_connection_is_refused(queue: JobQueue, wrong: Any) -> None:
    inside = queue.options(connection=wrong)
    with pytest.raises(TypeError, match="connection="):
        inside.enqueue(anything)
    with pytest.raises(TypeError, match="connection="):
        inside.enqueue_many(anything, [{}])
    assert queue.count() == 0


def test_connections_of_other_drivers_are_refused(queue: JobQueue) -> None:
    import sqlite3

    made = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.NullPool)
    with sqlite3.connect(":memory:") as raw, made.connect() as connection, Session(made) as session:
        for wrong in (raw, connection, session):
            with pytest.raises(TypeError, match="psycopg"):
                queue.options(connection=wrong).enqueue(anything)
    raw.close()
    assert queue.count() == 0


def test_sync_and_async_connections_do_not_mix(storage: PostgresStorage, dsn: str) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue, await psycopg.AsyncConnection.connect(dsn) as connection:
            with pytest.raises(TypeError, match="AsyncJobQueue"):
                JobQueue(storage).options(connection=connection).enqueue(anything)
            with psycopg.connect(dsn) as sync, sqlalchemy_connection(dsn) as sa:
                for wrong in (sync, sa):
                    with pytest.raises(TypeError, match="connection="):
                        await queue.options(connection=wrong).enqueue(anything)
            assert await queue.count() == 0

    asyncio.run(main())


# Pools.


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_shared_pool_is_used_and_left_open(dsn: str, autocommit: bool, database: Database) -> None:
    name = "shared pool"
    kwargs = {"autocommit": autocommit, "application_name": name}
    with ConnectionPool(dsn, kwargs=kwargs, min_size=1, max_size=2, open=True) as pool:
        with JobQueue(PostgresStorage(pool)) as queue:
            ids = [queue.options(queue="q").enqueue(anything, n=1), *queue.enqueue_many(anything, [{"n": 2}] * 3)]
            queue.options(unique_key="k", delay=9).enqueue(anything)
            job = queue.dequeue("q")
            assert job is not None
            queue.complete(job, [1])
            job = queue.dequeue()
            assert job is not None
            queue.fail(job, "x")
            queue.cancel(ids[-1])
            queue.retry(ids[-1])
            assert queue.stats() == {
                "pending": 4,
                "running": 0,
                "completed": 1,
                "failed": 0,
                "cancelled": 0,
                "total": 5,
            }
            names = database.rows(
                "select distinct application_name from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
            assert names == [(name,)]
        with pool.connection() as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            assert connection.autocommit is autocommit
    assert database.value("select count(*) from dbjobq.job") == 5


def test_a_shared_async_pool_is_used_and_left_open(dsn: str) -> None:
    async def main() -> None:
        async with AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False) as pool:
            storage = PostgresStorage(pool)
            async with AsyncJobQueue(storage) as queue:
                await queue.enqueue_many(anything, [{"n": 1}])
                job = await queue.dequeue()
                assert job is not None
                await queue.complete(job)
            async with pool.connection() as connection:
                await connection.execute("select 1")
            stats = await asyncio.to_thread(lambda: JobQueue(storage).stats())  # threads have a pool of their own
            assert stats["completed"] == 1
            storage.close()

    asyncio.run(main())


def test_a_sync_pool_serves_async_calls_too(dsn: str) -> None:
    async def main() -> int:
        async with AsyncJobQueue(storage) as queue:
            await queue.enqueue(anything)
            return await queue.count()

    with ConnectionPool(dsn, min_size=1, open=True) as pool:
        storage = PostgresStorage(pool)
        assert asyncio.run(main()) == 1


def test_a_shared_pool_may_make_cursors_of_another_kind(dsn: str) -> None:
    with ConnectionPool(dsn, kwargs={"cursor_factory": psycopg.RawCursor}, min_size=1, open=True) as pool:
        queue = JobQueue(PostgresStorage(pool))
        queue.enqueue(anything)
        queue.enqueue_many(anything, [{}])
        assert queue.count() == 2


def test_a_pool_that_was_closed_says_so(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, open=True) as pool:
        queue = JobQueue(PostgresStorage(pool))
        queue.enqueue(anything)
    with pytest.raises(StorageUnavailable, match="closed"):
        queue.enqueue(anything)


def test_closing_gives_up_every_connection_and_may_be_repeated(dsn: str, database: Database) -> None:
    storage = PostgresStorage(dsn)
    queue = JobQueue(storage)
    queue.enqueue(anything)

    async def main() -> None:
        async with AsyncJobQueue(storage) as other:
            assert await other.count() == 1

    asyncio.run(main())
    queue.close()
    queue.close()
    storage.close()
    gone = "select count(*) from pg_stat_activity where application_name = 'dbjobq' and datname = current_database()"
    deadline = time.monotonic() + 60
    while database.value(gone):  # the server needs a moment to notice
        assert time.monotonic() < deadline


FORK = """
import os, sys, warnings
from dbjobq import JobQueue, PostgresStorage
queue = JobQueue(PostgresStorage(sys.argv[1]))
queue.enqueue("parent.before", n=0)
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of fork beside threads
child = os.fork()
for n in range(20):
    queue.enqueue("child" if child == 0 else "parent", n=n)
    job = queue.dequeue()
    queue.complete(job)
queue.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert queue.stats()["completed"] == 40, queue.stats()
    print("both", queue.count())
"""


def test_a_forked_child_makes_connections_of_its_own(dsn: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORK, dsn], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "both 41\n", "")


# What does not work says so.


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A server of one's own that asks for a password."""
    with EmbeddedPostgres(tcp=True, tempdir="/dev/shm") as server:  # not every server of the tests has passwords
        yield server.dsn(tcp=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "s3cret-wr0ng"}, "password authentication failed"),
        ({"user": "nobody_here", "password": "s3cret-wr0ng"}, "nobody_here"),
        ({"dbname": "no_such_database"}, "no_such_database"),
    ],
    ids=["password", "user", "database"],
)
def test_a_refused_connection_is_a_config_error_of_one_line(guarded: str, change: dict[str, str], says: str) -> None:
    secret = str(conninfo_to_dict(guarded)["password"])
    begin = time.monotonic()
    with PostgresStorage(make_conninfo(guarded, **change), timeout=200) as storage:
        for call in (JobQueue(storage).count, lambda: asyncio.run(acount(storage)), storage.check().run):
            with pytest.raises(ConfigError) as caught:
                call()
            text = one_line(caught.value)
            assert says in text
            assert secret not in text
            assert "s3cret" not in text
    assert time.monotonic() - begin < 100  # nobody waits for it to be mended


async def acount(storage: PostgresStorage) -> int:
    async with AsyncJobQueue(storage) as queue:
        return await queue.count()


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:s3cret@[::1/db",
        "postgresql://user:s3cret%zz@localhost/db",
        "postgresql://user:s3cret@localhost:port/db?x=y",
        "host=localhost password=p s3cret user=u",
        "host=localhost password='s3cret",
        "host=localhost pasword=s3cret",
    ],
)
def test_a_dsn_that_cannot_be_read_is_a_config_error_without_its_secrets(dsn: str) -> None:
    with pytest.raises(ConfigError) as caught, PostgresStorage(dsn) as storage:
        JobQueue(storage).count()
    text = one_line(caught.value)
    assert "DSN" in text
    assert "s3cret" not in text


def test_no_secret_is_shown_by_repr() -> None:
    assert "s3cret" not in repr(PostgresStorage("postgresql://user:s3cret@localhost/db"))


@pytest.mark.parametrize("dsn", [5, b"postgresql://localhost", object()])
def test_what_is_no_dsn_is_a_type_error(dsn: Any) -> None:
    with pytest.raises(TypeError, match="conninfo="):
        PostgresStorage(dsn)


def test_a_server_that_is_not_there_is_unavailable(dsn: str) -> None:
    with FaultProxy(("127.0.0.1", 9)) as proxy:
        proxy.refuse()
        address = make_conninfo(dsn, host="127.0.0.1", port=proxy.port)
        begin = time.monotonic()
        with PostgresStorage(address, timeout=200) as storage, pytest.raises(StorageUnavailable) as caught:
            JobQueue(storage).count()
        one_line(caught.value)
        assert time.monotonic() - begin < 100


def test_missing_tables_say_what_to_do(empty_dsn: str) -> None:
    with PostgresStorage(empty_dsn) as storage:
        queue = JobQueue(storage)
        calls: list[Callable[[], object]] = [
            lambda: queue.enqueue(anything),
            lambda: queue.enqueue_many(anything, [{}]),
            queue.dequeue,
            queue.count,
            queue.list_jobs,
            lambda: queue.get_job("01a20a8f-9c22-76e4-9219-c1f8944f2bb3"),
            storage.check().run,
            lambda: asyncio.run(acount(storage)),
        ]
        for call in calls:
            with pytest.raises(SchemaError, match="dbjobq migrate") as caught:
                call()
            one_line(caught.value)


def test_another_schema_has_no_tables(dsn: str) -> None:
    with PostgresStorage(dsn, schema="elsewhere") as storage, pytest.raises(SchemaError, match="'elsewhere'"):
        JobQueue(storage).enqueue(anything)


@pytest.mark.parametrize(
    "schema", ["My Schema", "größe-π", "a-b.c", "select", "$1", "日本" * 10, "x" * 63, " lead", "a;b", "(a)", "UPPER"]
)
def test_any_name_that_is_no_syntax_can_be_the_schemas(empty_dsn: str, schema: str) -> None:
    migrate(empty_dsn, schema)
    with PostgresStorage(empty_dsn, schema=schema) as storage:
        storage.check().run()
        queue = JobQueue(storage)
        queue.options(unique_key="k").enqueue(anything, n=1)
        queue.enqueue_many(anything, [{"n": 2}])
        for n in (1, 2):
            job = queue.dequeue()
            assert job is not None
            assert job.data == {"n": n}
            queue.complete(job)
        assert queue.stats()["completed"] == 2


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "x" * 64,
        "é" * 32,
        'a"b',
        "a'b",
        "a%b",
        "a{b}",
        "a:b",
        "a\\b",
        "a\x00b",
        "pg_catalog",
        "pg_x",
        "\ud800",
        5,
        b"x",
    ],
    ids=ascii,
)
def test_other_names_of_schemas_are_refused(schema: Any) -> None:
    with pytest.raises(ConfigError, match="schema=") as caught:
        PostgresStorage("postgresql://localhost/app", schema=schema)
    one_line(caught.value)


def test_two_schemas_of_one_database_do_not_meet(dsn: str) -> None:
    migrate(dsn, "second")
    with PostgresStorage(dsn) as one, PostgresStorage(dsn, schema="second") as two:
        JobQueue(one).enqueue(anything, n=1)
        assert JobQueue(two).dequeue() is None
        assert JobQueue(two).count() == 0
        assert JobQueue(one).dequeue() is not None
