"""What is SQLite's own: URLs and engines, files and memory, locks, processes, and what is not supported."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from dbjobq import (
    AsyncJobQueue,
    BaseStorage,
    ConfigError,
    JobQueue,
    NotSupported,
    PostgresStorage,
    SchemaError,
    StorageUnavailable,
)
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage
from dbjobq.storage.sqlite import engine
from tests.queue.jobs import anything


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def storage(url: str) -> Iterator[SQLAlchemyStorage]:
    with SQLAlchemyStorage(url) as storage:
        yield storage


@contextmanager
def made(database: Any) -> Generator[JobQueue]:
    with SQLAlchemyStorage(database) as storage:
        yield JobQueue(storage)


def shared_engine() -> sqlalchemy.Engine:
    return create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


def works(queue: JobQueue) -> None:
    one = queue.enqueue(anything, n=1)
    job = queue.dequeue()
    assert job is not None
    assert job.id == one
    queue.complete(job, "done")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(queue.get_job, one).result()
    assert found is not None
    assert (found.status, found.result) == ("completed", "done")


# What it is made from.


@pytest.mark.parametrize("memory", ["sqlite:///:memory:", "sqlite://", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_one_for_all_threads(memory: str) -> None:
    with made(memory) as queue:
        works(queue)
        ids = queue.enqueue_many(anything, [{"n": n} for n in range(200)])

        def work(_: int) -> list[str]:
            mine: list[str] = []
            while (job := queue.dequeue()) is not None:
                queue.complete(job)
                mine.append(job.id)
            return mine

        with ThreadPoolExecutor(4) as pool:
            assert sorted(i for mine in pool.map(work, range(4)) for i in mine) == ids
    with made(memory) as queue:
        assert queue.count() == 0


def test_a_file_is_made_and_found_again(url: str, path: Path) -> None:
    with made(url) as queue:
        works(queue)
    with made(make_url(url)) as queue:
        assert queue.count("completed") == 1
    with sqlite3.connect(path) as connection:
        tables = {row[0] for row in connection.execute("select name from sqlite_schema where type = 'table'")}
    connection.close()
    assert tables == {"dbjobq_jobs"}


def test_a_commit_is_durable(storage: SQLAlchemyStorage) -> None:
    storage.check().run()
    with storage.engine.connect() as connection:
        settings = [connection.execute(text(f"pragma {name}")).scalar() for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_an_engine_for_a_file_stays_as_it_is(url: str) -> None:
    engine = create_engine(url)
    with made(engine) as queue:
        works(queue)
    assert "Connections in pool: 0" in engine.pool.status()  # none of it was used
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from dbjobq_jobs")).scalar() == 1
    engine.dispose()


def test_an_async_engine_for_a_file_will_do(url: str) -> None:
    with made(create_async_engine(url.replace("sqlite", "sqlite+aiosqlite"))) as queue:
        works(queue)


def test_an_engine_with_one_connection_in_memory_is_shared_and_left_open() -> None:
    engine = shared_engine()
    with made(engine) as queue:
        works(queue)
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from dbjobq_jobs")).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("pool", [SingletonThreadPool, QueuePool, NullPool])
@pytest.mark.parametrize("memory", ["sqlite://", "sqlite:///file:x?mode=memory&uri=true"])
def test_an_engine_that_has_a_database_in_memory_for_each_thread_is_refused(memory: str, pool: type[Pool]) -> None:
    with pytest.raises(ConfigError, match="poolclass=StaticPool"):
        SQLAlchemyStorage(create_engine(memory, poolclass=pool))


def test_an_engine_bound_to_its_thread_is_refused_when_another_uses_it() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with made(engine) as queue, ThreadPoolExecutor(1) as pool:
        queue.count()
        with pytest.raises(ConfigError, match="thread"):
            pool.submit(queue.count).result()
    engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
@pytest.mark.parametrize("kind", [str, make_url])
def test_a_url_of_postgresql_gives_postgresstorage(scheme: str, kind: Callable[[str], Any]) -> None:
    given = f"{scheme}://me:p%40ss%2Fword@db.example:6543/app?sslmode=require&connect_timeout=3"
    storage: BaseStorage = SQLAlchemyStorage(kind(given))
    assert isinstance(storage, PostgresStorage)
    known = conninfo_to_dict(storage.connections.way.conninfo)
    wanted = {"user": "me", "password": "p@ss/word", "host": "db.example", "port": "6543", "dbname": "app"}
    wanted |= {"sslmode": "require", "connect_timeout": "3"}
    assert {name: str(known[name]) for name in wanted} == wanted
    assert "p@ss" not in repr(storage)


@pytest.mark.parametrize("make", [create_engine, create_async_engine])
def test_an_engine_of_postgresql_gives_postgresstorage(dsn: str, make: Callable[[Any], Any]) -> None:
    known = conninfo_to_dict(dsn)
    at = sqlalchemy.URL.create(
        "postgresql+psycopg",
        username=str(known["user"]),
        password=str(known.get("password") or "sp ace+pl%us"),
        database=str(known["dbname"]),
        query={name: str(known[name]) for name in ("host", "port") if name in known} | {"options": "-c jit=off"},
    )
    with made(make(at)) as queue:
        works(queue)
        assert isinstance(queue.storage, PostgresStorage)
        found = conninfo_to_dict(queue.storage.connections.way.conninfo)
        assert (found["password"], found["options"]) == (at.password, "-c jit=off")


def test_an_option_of_some_other_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match="prepared_statement_cache_size"):
        SQLAlchemyStorage("postgresql+asyncpg://u:s3cret@h/db?prepared_statement_cache_size=0")


@pytest.mark.parametrize("wrong", ["mysql+pymysql://u:s3cret@h/db", "oracle://u:s3cret@h/db", "sqlite3:///jobs.db"])
def test_any_other_database_is_refused_with_what_is_supported(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"SQLite.*PostgreSQL.*, not on (mysql|oracle|sqlite3)") as caught:
        SQLAlchemyStorage(wrong)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "jobs.db", "host=h password=s3cret", "postgresql://u:s3cret@h:port/db"])
def test_a_url_that_cannot_be_read_is_refused_without_its_secrets(wrong: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        SQLAlchemyStorage(wrong)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrong", [None, 5, Path("jobs.db")])
def test_what_is_neither_url_nor_engine_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="database="):
        SQLAlchemyStorage(wrong)


def test_without_sqlalchemy_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import dbjobq.storage.sqlalchemy_storage"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dbjobq.errors.ConfigError: SQLAlchemyStorage needs SQLAlchemy")
    assert "pip install 'dbjobq[sqlalchemy]'" in last


def test_it_says_which_file_it_is_and_what_it_cannot_do(storage: SQLAlchemyStorage, path: Path) -> None:
    assert repr(storage) == f"SQLAlchemyStorage({path})"
    for feature in ("listen", "transactional"):
        with pytest.raises(NotSupported, match=f"SQLAlchemyStorage on SQLite does not support '{feature}'"):
            storage.require(feature)  # pyright: ignore[reportArgumentType]


# What goes wrong.


def test_a_place_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with made(f"sqlite:///{tmp_path}/nowhere/jobs.db") as queue, pytest.raises(ConfigError, match="nowhere") as caught:
        queue.count()
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_clear_line(url: str, path: Path) -> None:
    path.write_text("This is a letter to my aunt. " * 50)
    with made(url) as queue, pytest.raises(ConfigError, match="not a database") as caught:
        queue.count()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["drop table dbjobq_jobs", "alter table dbjobq_jobs drop column timeout"])
def test_tables_that_are_gone_or_of_another_release_are_a_schema_error(storage: SQLAlchemyStorage, change: str) -> None:
    queue = JobQueue(storage)
    queue.enqueue(anything)
    with storage.engine.begin() as connection:
        connection.execute(text(change))
    with pytest.raises(SchemaError, match="make them anew"):
        queue.enqueue(anything)


def test_a_database_in_memory_is_gone_once_its_storage_is_closed_and_a_new_one_can_be_used() -> None:
    storage = SQLAlchemyStorage("sqlite:///:memory:")
    queue = JobQueue(storage)
    queue.enqueue(anything)
    queue.close()
    queue.close()
    assert queue.count() == 0
    queue.close()


# Locks.


@contextmanager
def writing(path: Path) -> Generator[sqlite3.Connection]:
    """Another process in the middle of a transaction."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("begin immediate")
    try:
        yield connection
    finally:
        connection.close()


def test_a_writer_waits_for_another_and_readers_do_not(storage: SQLAlchemyStorage, path: Path) -> None:
    queue = JobQueue(storage)
    one = queue.enqueue(anything)
    with writing(path) as other, ThreadPoolExecutor(1) as pool:
        second = pool.submit(queue.enqueue, anything)
        for _ in range(20):
            assert [job.id for job in queue.list_jobs()] == [one]
        assert not second.done()
        other.execute("commit")
        assert second.result(60) == queue.list_jobs()[0].id


def test_an_event_loop_does_not_wait_for_another_writer(storage: SQLAlchemyStorage, path: Path) -> None:
    async def main() -> None:
        queue = AsyncJobQueue(storage)
        await queue.count()
        with writing(path) as other:
            enqueued = asyncio.create_task(queue.enqueue(anything))
            for _ in range(10):
                await asyncio.sleep(0.001)  # the loop runs
                assert await queue.count() == 0
            other.execute("commit")
            await enqueued
        assert await queue.count() == 1

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_lock_that_is_never_given_up_is_unavailable(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WRITER_WAIT", 0.1)
    with made(url) as queue:
        queue.count()
        with writing(path), pytest.raises(StorageUnavailable, match="locked"):
            queue.enqueue(anything)
        queue.enqueue(anything)


CROWD = """
import os, sys, threading
from dbjobq import JobQueue
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

url, processes, threads, jobs = sys.argv[1], *map(int, sys.argv[2:])
ready, go = os.pipe()
children = []
for number in range(processes):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(ready, 1)  # until the parent lets go
        queue, got, broken = JobQueue(SQLAlchemyStorage(url)), [], []

        def work():
            try:
                for n in range(jobs):
                    queue.enqueue("f", n=n)
                while (job := queue.dequeue()) is not None:
                    queue.complete(job)
                    got.append(job.id)
            except BaseException as error:
                broken.append(error)

        crowd = [threading.Thread(target=work) for _ in range(threads)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        os.write(1, "".join(f"{i}\\n" for i in got).encode())
        os.write(2, "".join(f"{error!r}\\n" for error in broken).encode())
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.mark.parametrize(
    ("processes", "threads", "jobs"), [(4, 4, 5), (10, 1, 2), pytest.param(8, 4, 15, marks=pytest.mark.slow)]
)
def test_processes_that_begin_at_once_on_one_file_lose_no_job_and_get_none_twice(  # noqa: PLR0917
    storage: SQLAlchemyStorage, url: str, path: Path, processes: int, threads: int, jobs: int
) -> None:
    assert not path.exists()  # they all make the tables
    command = [sys.executable, "-c", CROWD, url, *map(str, (processes, threads, jobs))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    got = done.stdout.split()
    assert len(got) == len(set(got)) == processes * threads * jobs
    assert storage.stats().run()["completed"] == len(got)


def in_child(call: Callable[[], object]) -> str:
    """What a call raises in a forked child."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            call()
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as said:  # noqa: PTH123 - a file descriptor
        return said.read()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(storage: SQLAlchemyStorage) -> None:
    queue = JobQueue(storage)
    one = queue.enqueue(anything)

    def child() -> None:
        assert queue.dequeue() is not None
        queue.complete(one)
        queue.enqueue(anything)
        queue.close()

    assert in_child(child) == ""
    assert (queue.count("completed"), queue.count("pending")) == (1, 1)
    works_on = queue.dequeue()
    assert works_on is not None
    queue.complete(works_on)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_told_that_memory_is_not_shared() -> None:
    with made("sqlite:///:memory:") as queue:
        queue.enqueue(anything)
        assert "belongs to the process that made it" in in_child(lambda: queue.enqueue(anything))
        assert queue.count() == 1


# The caller's own transaction.


@contextmanager
def a_connection(engine: sqlalchemy.Engine) -> Generator[Any]:
    with engine.begin() as connection:
        yield connection


@contextmanager
def a_session(engine: sqlalchemy.Engine) -> Generator[Any]:
    with Session(engine) as session, session.begin():
        yield session


@contextmanager
def a_scoped_session(engine: sqlalchemy.Engine) -> Generator[Any]:
    sessions = scoped_session(sessionmaker(engine))
    with sessions.begin():
        yield sessions
    sessions.remove()


class Rollback(Exception):  # noqa: N818 - a word, not an error
    """Ends a caller's transaction without effect."""


@pytest.mark.parametrize("memory", [False, True], ids=["file", "memory"])
@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("opened", [a_connection, a_session, a_scoped_session])
def test_jobs_exist_if_and_only_if_the_callers_transaction_commits(
    url: str, opened: Callable[..., Any], commit: bool, memory: bool
) -> None:
    engine = shared_engine() if memory else create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table orders (id integer)"))
    with made(engine) as queue:
        try:
            with opened(engine) as caller:
                caller.execute(text("insert into orders values (1)"))  # the caller writes already
                inside = queue.options(connection=caller)
                ids = [inside.enqueue(anything, n=0), *inside.enqueue_many(anything, [{"n": 1}, {"n": 2}])]
                assert inside.options(id=ids[0]).enqueue(anything) == ids[0]
                if not commit:
                    raise Rollback
        except Rollback:
            ids = []
        assert [job.id for job in queue.list_jobs()[::-1]] == ids
        works(queue) if not commit else None
    engine.dispose()


@pytest.mark.parametrize("commit", [True, False])
def test_the_same_of_async_connections_and_sessions(url: str, commit: bool) -> None:
    async def main(storage: SQLAlchemyStorage) -> None:
        queue, engine = AsyncJobQueue(storage), create_async_engine(url.replace("sqlite", "sqlite+aiosqlite"))
        async with engine.connect() as connection, AsyncSession(engine) as session:
            for caller in (connection, session):
                before = await queue.count()
                await queue.options(connection=caller).enqueue(anything)
                await (caller.commit() if commit else caller.rollback())
                assert await queue.count() == before + commit
        await engine.dispose()

    with SQLAlchemyStorage(url) as storage:
        asyncio.run(asyncio.wait_for(main(storage), 30))


def test_a_connection_in_autocommit_is_refused(url: str) -> None:
    engine = create_engine(url)
    by_hand = create_engine(url)

    @event.listens_for(by_hand, "connect")
    def connected(driver: Any, _: object) -> None:
        driver.isolation_level = None  # as SQLAlchemy's page on SQLite has it, so that savepoints work

    @event.listens_for(by_hand, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("begin")

    with SQLAlchemyStorage(url) as storage:
        queue = JobQueue(storage)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            with pytest.raises(ValueError, match="autocommit"):
                queue.options(connection=connection).enqueue(anything)
            with pytest.raises(ValueError, match="autocommit"):
                queue.options(connection=connection).enqueue_many(anything, [{}])
        assert queue.count() == 0
        with by_hand.connect() as connection:
            queue.options(connection=connection).enqueue(anything)
            connection.rollback()
            queue.options(connection=connection).enqueue(anything)
            connection.commit()
        assert queue.count() == 1
    engine.dispose()
    by_hand.dispose()


def test_what_is_no_connection_to_sqlite_is_refused(storage: SQLAlchemyStorage, dsn: str) -> None:
    queue = JobQueue(storage)
    raw = sqlite3.connect(":memory:")
    postgres = create_engine("postgresql+psycopg://", connect_args=conninfo_to_dict(dsn))
    elsewhere = postgres.connect()
    for wrong in (raw, elsewhere, object(), create_async_engine("sqlite+aiosqlite://").connect()):
        with pytest.raises(TypeError, match="must be SQLAlchemy's Connection or Session on SQLite"):
            queue.options(connection=wrong).enqueue(anything)
    raw.close()
    elsewhere.close()
    postgres.dispose()
    assert queue.count() == 0


def test_a_transaction_of_the_users_on_the_only_connection_is_left_alone() -> None:
    engine = shared_engine()
    with made(engine) as queue:
        queue.count()
        with Session(engine) as session:
            queue.options(connection=session).enqueue(anything)
            for call in (queue.count, lambda: queue.enqueue(anything)):
                with pytest.raises(StorageUnavailable, match="a transaction is open"):
                    call()
            session.commit()
        assert queue.count() == 1
    engine.dispose()


# A source that asks the same storage.


def test_the_source_of_many_jobs_may_use_the_queue(storage: SQLAlchemyStorage) -> None:
    queue = JobQueue(storage)
    ids = queue.enqueue_many(anything, ({"of": queue.enqueue(anything, n=n)} for n in range(3)))
    assert queue.count() == 6
    assert len(ids) == 3
