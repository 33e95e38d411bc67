"""`SQLAlchemyStorage`: a queue on SQLite, for development, examples and tests of your own (docs/sqlite.md).

The steps are in `sqlite_steps`; here each becomes a `Request`. A URL of PostgreSQL leads to `PostgresStorage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo

from dbjobq.errors import ConfigError
from dbjobq.ids import JobIds
from dbjobq.models import Job, Status
from dbjobq.storage.alchemy import sqlalchemy_async_connection, sqlalchemy_connection
from dbjobq.storage.base import BaseStorage, Feature, Recipe
from dbjobq.storage.postgres_storage import PostgresStorage
from dbjobq.storage.values import Claim, NewJob, Notice, Outcome, QueueStats

try:
    from sqlalchemy import URL, Connection, Engine, exc, make_url

    from dbjobq.storage.sqlite_engine import Sqlite
    from dbjobq.storage.sqlite_session import SqliteSession
    from dbjobq.storage.sqlite_steps import Steps
except ImportError as error:
    raise ConfigError(f"SQLAlchemyStorage needs SQLAlchemy 2: pip install 'dbjobq[sqlalchemy]' ({error})") from error

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["SQLAlchemyStorage"]

R = TypeVar("R")

_WORK: Final = Notice("work")
_BROKEN: Final = (
    "connection={}: must be SQLAlchemy's Connection or Session on SQLite, with AsyncJobQueue their async kinds"
)


class _SqliteRequest(Generic[R]):
    """A call to SQLite, not yet made (see `storage.base.Request`).

    Args:
        sqlite: The database.
        work: What to do there.
        writes: Whether it needs its turn.
        notice: What the workers of this process are told when it is done.
        connection: The caller's own connection, in whose transaction it is done.
    """

    __slots__ = ("_connection", "_notice", "_sqlite", "_work", "_writes")

    def __init__(
        self,
        sqlite: Sqlite,
        work: Callable[[Steps], R],
        *,
        writes: bool = True,
        notice: Notice | None = None,
        connection: object | None = None,
    ) -> None:
        self._sqlite, self._work, self._writes = sqlite, work, writes
        self._notice, self._connection = notice, connection

    def run(self) -> R:
        """Make the call. Raises ConfigError, SchemaError or StorageUnavailable for what is not its own fault."""
        if self._connection is not None:
            return self._told(self._joined(sqlalchemy_connection(self._connection)))
        return self._told((self._sqlite.write if self._writes else self._sqlite.read)(self._work))

    async def arun(self) -> R:
        """Make the call on a thread, so that the running event loop does not wait for another writer."""
        if self._connection is None:
            return await asyncio.to_thread(self.run)
        caller = await sqlalchemy_async_connection(self._connection)
        return self._told(self._joined(None) if caller is None else await caller.run_sync(self._joined))

    def _joined(self, caller: Connection | None) -> R:
        if caller is None or caller.dialect.name != "sqlite":
            raise TypeError(_BROKEN.format(type(self._connection).__name__))
        return self._sqlite.join(caller, self._work)

    def _told(self, answer: R) -> R:
        # In a caller's transaction this comes before the commit, for which a worker's next claim has to wait anyway.
        if self._notice is not None:
            self._sqlite.tell(self._notice)
        return answer


class SQLAlchemyStorage(BaseStorage):
    """Jobs in SQLite; or, with a URL or an engine of PostgreSQL, a `PostgresStorage` in its place (contract §7).

    Several threads and processes may work on one file. Its tables, `dbjobq_jobs` and `dbjobq_workers`, are made when
    they are first needed. Close it when done, or use it as a context manager.

    Args:
        database: A URL (`sqlite:///jobs.db`, `sqlite:///:memory:`, `postgresql://…`); or an engine, which is asked for
            its URL and left as it is. Only a database in memory is reached through the engine that it lives in.

    Raises:
        ConfigError: The URL cannot be read, or is one of another database.
    """

    name: ClassVar[str] = "SQLAlchemyStorage on SQLite"
    supports: ClassVar[frozenset[Feature]] = frozenset({"connection"})

    def __new__(cls, database: str | URL | Engine | AsyncEngine) -> Self:
        """Return a storage for the database that the URL names."""
        url = _url(database)
        backend = url.get_backend_name()
        if backend in {"postgres", "postgresql"}:
            return cast("Self", PostgresStorage(_conninfo(url)))
        if backend != "sqlite":
            known = "SQLite (sqlite:///jobs.db) and PostgreSQL (postgresql://…)"
            raise ConfigError(f"SQLAlchemyStorage works on {known}, not on {backend}")
        return super().__new__(cls)

    def __init__(self, database: str | URL | Engine | AsyncEngine) -> None:
        super().__init__()
        theirs = getattr(database, "sync_engine", database)
        self._sqlite = Sqlite(_url(database), theirs if isinstance(theirs, Engine) else None)

    def __repr__(self) -> str:
        return f"SQLAlchemyStorage({self._sqlite.path})"

    def recipe(self) -> Recipe | None:
        """See `BaseStorage.recipe`: a database in memory is out of others' reach."""
        url = self._sqlite.url
        return None if url is None else Recipe(__name__, "SQLAlchemyStorage", {"database": url})

    @property
    def engine(self) -> Engine:
        """The engine it works with: for a Session of yours on the same database in memory."""
        return self._sqlite.engine

    def _read(self, work: Callable[[Steps], R]) -> _SqliteRequest[R]:
        return _SqliteRequest(self._sqlite, work, writes=False)

    def _write(
        self, work: Callable[[Steps], R], notice: Notice | None = _WORK, connection: object | None = None
    ) -> _SqliteRequest[R]:
        return _SqliteRequest(self._sqlite, work, notice=notice, connection=connection)

    # Enqueue.

    def check(self) -> _SqliteRequest[None]:
        """See `BaseStorage.check`: makes the tables."""
        return self._read(lambda _: None)

    def enqueue(self, job: NewJob, connection: object | None = None) -> _SqliteRequest[str]:
        """See `BaseStorage.enqueue`."""
        return self._write(lambda s: s.add(job), connection=connection)

    def enqueue_many(
        self, like: NewJob, data: Iterable[str], connection: object | None = None
    ) -> _SqliteRequest[JobIds]:
        """See `BaseStorage.enqueue_many`; all data are collected first, so that their source may use this storage."""
        collected = list(data)
        return self._write(lambda s: s.add_many(like, collected), connection=connection)

    # Work by hand.

    def dequeue(self, queue: str, lease: float) -> _SqliteRequest[Claim | None]:
        """See `BaseStorage.dequeue`."""
        return self._write(lambda s: s.take(queue, self.dequeuer, lease), None)

    def finish(self, outcomes: Sequence[Outcome], connection: object | None = None) -> _SqliteRequest[set[str]]:
        """See `BaseStorage.finish`."""
        return self._write(lambda s: {o.claim.id for o in outcomes if s.finish(o)}, connection=connection)

    def retry(self, job_id: str, delay: float) -> _SqliteRequest[bool]:
        """See `BaseStorage.retry`."""
        return self._write(lambda s: s.retry(job_id, delay))

    def cancel(self, job_id: str) -> _SqliteRequest[bool]:
        """See `BaseStorage.cancel`."""
        return self._write(lambda s: s.cancel(job_id), Notice("cancel", job_id))

    # Look.

    def get_job(self, job_id: str) -> _SqliteRequest[Job | None]:
        """See `BaseStorage.get_job`."""
        return self._read(lambda s: s.job(job_id))

    def get_progress(self, job_id: str) -> _SqliteRequest[dict[str, Any] | None]:
        """See `BaseStorage.get_progress`."""
        return self._read(lambda s: s.progress(job_id))

    def list_jobs(
        self,
        status: Status | None,
        limit: int | None,
        queue: str | None = None,
        type: str | None = None,  # noqa: A002
    ) -> _SqliteRequest[list[Job]]:
        """See `BaseStorage.list_jobs`."""
        return self._read(lambda s: s.jobs(limit, status=status, queue=queue, type=type))

    def stats(self) -> _SqliteRequest[dict[Status, int]]:
        """See `BaseStorage.stats`."""
        return self._read(Steps.stats)

    def queue_stats(self) -> _SqliteRequest[list[QueueStats]]:
        """See `BaseStorage.queue_stats`: of the queues that have jobs."""
        return self._read(Steps.queue_stats)

    # Work by workers.

    def session(self, worker_id: str, queues: Sequence[str] | None, ttl: float) -> SqliteSession:
        """See `BaseStorage.session`."""
        return SqliteSession(self._sqlite, worker_id, queues, ttl)

    def close(self) -> None:
        """See `BaseStorage.close`. A database in memory ends with it, unless it is the user's engine's."""
        self._sqlite.close()

    async def aclose(self) -> None:
        """See `BaseStorage.aclose`: no connection is an event loop's."""


def _conninfo(url: URL) -> str:
    """Return what a URL says of PostgreSQL as libpq takes it; the driver is not ours."""
    parts: dict[str, Any] = {name: ",".join(values) for name, values in url.normalized_query.items()}
    own = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    parts |= {name: value for name, value in own.items() if value}
    try:
        return make_conninfo(**parts)
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"libpq does not take these options of the URL: {', '.join(url.query)}") from error


def _url(database: str | URL | Engine | AsyncEngine) -> URL:
    given = getattr(database, "url", database)
    if not isinstance(given, str | URL):
        raise TypeError(f"database={database!r}: must be a URL or an engine of SQLAlchemy")
    try:
        url = make_url(given)
    except (exc.ArgumentError, ValueError):  # what they quote may hold a password
        raise ConfigError("the URL cannot be read: write sqlite:///jobs.db, or postgresql://…") from None
    return url.set(drivername="sqlite") if url.drivername == "sqlite+aiosqlite" else url
