"""`SQLAlchemyStorage`: a queue on SQLite, for development, examples and tests of your own (docs/sqlite.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

from dbjobq.errors import ConfigError
from dbjobq.ids import JobIds
from dbjobq.models import Job, Status
from dbjobq.storage.alchemy import Database, conninfo_of, url_of
from dbjobq.storage.base import BaseStorage, Feature, JobFilter, Recipe, Request
from dbjobq.storage.postgres_storage import PostgresStorage
from dbjobq.storage.values import (
    Bounds,
    Claim,
    Count,
    Failure,
    Glance,
    Listing,
    NewJob,
    Outcome,
    QueueGlance,
    QueueStats,
    known_id,
)

try:
    import sqlalchemy as sa

    from dbjobq.storage.sqlite import jobs
    from dbjobq.storage.sqlite.engine import Sqlite, SqliteRequest
    from dbjobq.storage.sqlite.session import SqliteSession
except ImportError as error:
    raise ConfigError(f"SQLAlchemyStorage needs SQLAlchemy 2: pip install 'dbjobq[sqlalchemy]' ({error})") from error

__all__ = ["SQLAlchemyStorage"]

R = TypeVar("R")
JOB = jobs.JOBS.c


class SQLAlchemyStorage(BaseStorage):
    """Jobs in SQLite; or, with a URL or an engine of PostgreSQL, a `PostgresStorage` in its place.

    Several threads and processes may work on one file. The table, `dbjobq_jobs`, is made when it is first needed. Close
    the storage when done, or use it as a context manager.

    Args:
        database: A URL (`sqlite:///jobs.db`, `sqlite:///:memory:`, `postgresql://…`); or an engine, of which only the
            URL is used. A database in memory is the exception: it is reached through the engine that it lives in.

    Raises:
        ConfigError: The URL cannot be read, or names another kind of database.
    """

    name: ClassVar[str] = "SQLAlchemyStorage on SQLite"
    supports: ClassVar[frozenset[Feature]] = frozenset({"connection"})

    def __new__(cls, database: Database) -> Self:
        """Return a storage for the URL's database: not of this class for PostgreSQL."""
        url = url_of(database)
        backend = url.get_backend_name()
        if backend in {"postgres", "postgresql"}:
            return cast("Self", PostgresStorage(conninfo_of(url)))
        if backend != "sqlite":
            raise ConfigError(f"it works on SQLite (sqlite:///…) and PostgreSQL (postgresql://…), not on {backend}")
        return super().__new__(cls)

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._sqlite = Sqlite(url_of(database), getattr(database, "sync_engine", database), jobs.JOBS)
        self.engine = self._sqlite.engine
        """The storage's engine, for a Session of yours on the same database in memory."""

    def __repr__(self) -> str:
        return f"SQLAlchemyStorage({self._sqlite.path})"

    def recipe(self) -> Recipe | None:
        """See `BaseStorage.recipe`: a database in memory is out of others' reach."""
        url = self._sqlite.url
        return None if url is None else Recipe(__name__, "SQLAlchemyStorage", {"database": url})

    def _read(self, work: Callable[[sa.Connection], R]) -> Request[R]:
        return SqliteRequest(self._sqlite, work, writes=False)

    def _write(self, work: Callable[[sa.Connection], R], connection: object | None = None) -> Request[R]:
        return SqliteRequest(self._sqlite, work, connection=connection)

    def check(self) -> Request[None]:
        """See `BaseStorage.check`: makes the tables."""
        return self._read(lambda _: None)

    def enqueue(self, job: NewJob, connection: object | None = None) -> Request[str]:
        """See `BaseStorage.enqueue`."""
        return self._write(lambda db: jobs.add(db, job, {job.id: job.data})[0], connection)

    def enqueue_many(self, like: NewJob, data: Iterable[str], connection: object | None = None) -> Request[JobIds]:
        """See `BaseStorage.enqueue_many`; all data are collected first, so that their source may use this storage."""
        collected = list(data)
        ids = JobIds.new().grown(len(collected))

        def call(db: sa.Connection) -> JobIds:
            jobs.add(db, like, dict(zip(ids, collected, strict=True)))
            return ids

        return self._write(call, connection)

    # Work by hand.

    def dequeue(self, queue: str, lease: float) -> Request[Claim | None]:
        """See `BaseStorage.dequeue`."""

        def call(db: sa.Connection) -> Claim | None:
            jobs.rescue(db)  # perhaps no worker runs that would rescue jobs
            return next(iter(jobs.claim(db, 1, [queue], worker_id=self.dequeuer, expires_at=jobs.NOW + lease)), None)

        return self._write(call)

    def finish(self, outcomes: Sequence[Outcome], connection: object | None = None) -> Request[set[str]]:
        """See `BaseStorage.finish`."""
        return self._write(lambda db: jobs.finish(db, outcomes), connection)

    def retry(self, job_id: str, delay: float) -> Request[bool]:
        """See `BaseStorage.retry`."""
        return self._write(lambda db: jobs.move_by_hand(db, "revive", job_id, due_at=_due_after(delay)))

    def cancel(self, job_id: str) -> Request[bool]:
        """See `BaseStorage.cancel`."""
        return self._write(lambda db: jobs.move_by_hand(db, "cancel", job_id))

    def retry_many(self, ids: Sequence[str], delay: float) -> Request[int]:
        """See `BaseStorage.retry_many`."""

        def call(db: sa.Connection) -> int:  # one by one: two may have had the same unique key
            return sum(len(jobs.move(db, "revive", JOB.id == i, due_at=_due_after(delay))) for i in ids)

        return self._write(call)

    def cancel_many(self, ids: Sequence[str]) -> Request[int]:
        """See `BaseStorage.cancel_many`."""
        return self._write(lambda db: len(jobs.move(db, "cancel", JOB.id.in_(ids))))

    # Look.

    def get_job(self, job_id: str) -> Request[Job | None]:
        """See `BaseStorage.get_job`."""
        return self._read(lambda db: next(iter(jobs.found(db, id=known_id(job_id) or "")), None))

    def failures(self, job_id: str, limit: int) -> Request[list[Failure]]:  # noqa: ARG002 - the port's
        """See `BaseStorage.failures`: `Job.error` has the last."""
        return self._read(lambda _: [])

    def get_progress(self, job_id: str) -> Request[dict[str, Any] | None]:
        """See `BaseStorage.get_progress`."""
        said: Any = sa.select(sa.type_coerce(JOB.progress, sa.JSON)).where(JOB.id == (known_id(job_id) or ""))
        return self._read(lambda db: db.scalar(said))

    def list_jobs(self, limit: int | None, **wanted: Unpack[JobFilter]) -> Request[list[Job]]:
        """See `BaseStorage.list_jobs`."""
        return self._read(lambda db: jobs.found(db, limit, **wanted))

    def look(self, limit: int, bounds: Bounds, **wanted: Unpack[JobFilter]) -> Request[Listing]:
        """See `BaseStorage.look`: the newest of all jobs are looked at, whatever their status."""
        return self._read(lambda db: jobs.looked(db, limit, bounds, **wanted))

    def ids(self, before: str | None, **wanted: Unpack[JobFilter]) -> Request[tuple[list[str], str | None]]:
        """See `BaseStorage.ids`: all at once."""
        assert before is None  # noqa: S101 - nobody was told of another
        return self._read(lambda db: (jobs.ids(db, **wanted), None))

    def glance(self) -> Request[Glance]:
        """See `BaseStorage.glance`: SQLite databases are small, so all jobs are counted."""

        def call(db: sa.Connection) -> Glance:
            queues = [
                QueueGlance(queue, Count(ready), Count(scheduled), Count(running), oldest)
                for queue, ready, scheduled, running, oldest in jobs.queue_stats(db)
            ]
            statuses: dict[Status, Count] = {status: Count(number) for status, number in jobs.stats(db).items()}
            return Glance(statuses, queues, more=False)

        return self._read(call)

    def stats(self) -> Request[dict[Status, int]]:
        """See `BaseStorage.stats`."""
        return self._read(jobs.stats)

    def queue_stats(self) -> Request[list[QueueStats]]:
        """See `BaseStorage.queue_stats`: of the queues that have jobs."""
        return self._read(jobs.queue_stats)

    # Work by workers.

    def session(self, worker_id: str, queues: Sequence[str] | None, ttl: float) -> SqliteSession:
        """See `BaseStorage.session`."""
        return SqliteSession(self._sqlite, worker_id, queues, ttl)

    def close(self) -> None:
        """See `BaseStorage.close`. A database in memory ends with it, unless it is the user's engine's."""
        self._sqlite.close()


def _due_after(delay: float) -> Any:
    """Return when a revived job is due: after the delay, and not before its own `execute_at`."""
    return sa.func.max(jobs.NOW + delay, sa.func.coalesce(JOB.execute_at, 0))
