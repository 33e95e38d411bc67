"""What tests do to a database behind the queue's back, and see there: the clock, dead workers, rows as they are."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from tests.storage.database import Database

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Backstage", "OnPostgres", "backstage_of"]


class Backstage(Protocol):
    """The same for every storage."""

    def skip(self, seconds: float) -> None:
        """Let that much time pass for all that waits and all that is leased."""
        ...

    def fall_due(self) -> None:
        """Let the time of all that waits come, and no more of it pass."""
        ...

    def due_in(self) -> float | None:
        """The seconds until the first of what waits is due."""
        ...

    def kill(self, worker: str) -> None:
        """Make it so that a worker has not renewed its life in time."""
        ...

    def revive(self, worker: str) -> None:
        """Take that back, for the last of this name."""
        ...

    def clear(self) -> None:
        """Delete everything."""
        ...

    def timeouts(self) -> list[float | None]:
        """The jobs' own timeouts, in the order of their ids."""
        ...

    def states(self) -> dict[str, tuple[str, int]]:
        """Where each job stands, and its failed attempts."""
        ...

    def keys(self) -> dict[str, str]:
        """Who holds each unique key."""
        ...

    def sound(self) -> bool:
        """Whether the rows agree with one another."""
        ...


class OnPostgres:
    """Backstage in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._rows = database.rows
        self._value = database.value

    def skip(self, seconds: float) -> None:
        past = "make_interval(secs => %s)"
        self._rows(f"update dbjobq.scheduled set run_at = run_at - {past}", seconds)
        self._rows(f"update dbjobq.lease set expires_at = expires_at - {past}", seconds)
        self._rows(f"update dbjobq.worker set expires_at = expires_at - {past}", seconds)

    def fall_due(self) -> None:
        self._rows("update dbjobq.scheduled set run_at = now() - interval '1 s'")

    def due_in(self) -> float | None:
        found = self._rows("select extract(epoch from min(run_at) - clock_timestamp())::float8 from dbjobq.scheduled")
        return found[0][0]  # type: ignore[no-any-return]

    def kill(self, worker: str) -> None:
        ended = "update dbjobq.worker set expires_at = now() - interval '1 s' where name = %s returning id"
        assert self._rows(ended, worker)

    def revive(self, worker: str) -> None:
        last = "(select max(id) from dbjobq.worker where name = %s)"
        self._rows(f"update dbjobq.worker set expires_at = now() + interval '1 h' where id = {last}", worker)

    def clear(self) -> None:
        self._rows(
            "truncate dbjobq.job, dbjobq.ready, dbjobq.scheduled, dbjobq.lease, dbjobq.done, dbjobq.failure,"
            " dbjobq.unique_key, dbjobq.worker restart identity"
        )

    def timeouts(self) -> list[float | None]:
        return [row[0] for row in self._rows("select timeout from dbjobq.job order by id")]

    def states(self) -> dict[str, tuple[str, int]]:
        return {str(i): (status, n) for i, status, n in self._rows("select id, status, attempts from dbjobq.jobs")}

    def keys(self) -> dict[str, str]:
        return {key: str(i) for key, i in self._rows("select key, job_id from dbjobq.unique_key")}

    def sound(self) -> bool:
        """Every job is in one place."""
        return bool(
            self._value(
                "select (select count(*) from dbjobq.ready) + (select count(*) from dbjobq.scheduled)"
                " + (select count(*) from dbjobq.lease) + (select count(*) from dbjobq.done)"
                " = (select count(*) from dbjobq.job)"
            )
        )


class OnSqlite:
    """Backstage in SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _rows(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, params).fetchall()

    def skip(self, seconds: float) -> None:
        self._rows(f"update dbjobq_jobs set due_at = due_at - ? where status = 'pending' and due_at > {NOW}", seconds)
        self._rows("update dbjobq_jobs set expires_at = expires_at - ?", seconds)

    def fall_due(self) -> None:
        self._rows(f"update dbjobq_jobs set due_at = {NOW} - 1 where status = 'pending' and due_at > {NOW}")

    def due_in(self) -> float | None:
        later = f"select min(due_at) - {NOW} from dbjobq_jobs where status = 'pending' and due_at > {NOW}"
        return self._rows(later)[0][0]  # type: ignore[no-any-return]

    def kill(self, worker: str) -> None:
        self._rows("update dbjobq_jobs set expires_at = 0 where status = 'running' and worker_id = ?", worker)

    def revive(self, worker: str) -> None:
        again = f"update dbjobq_jobs set expires_at = {NOW} + 3600 where status = 'running' and worker_id = ?"
        self._rows(again, worker)

    def clear(self) -> None:
        self._rows("delete from dbjobq_jobs")

    def timeouts(self) -> list[float | None]:
        return [row[0] for row in self._rows("select timeout from dbjobq_jobs order by id")]

    def states(self) -> dict[str, tuple[str, int]]:
        return {i: (status, n) for i, status, n in self._rows("select id, status, attempts from dbjobq_jobs")}

    def keys(self) -> dict[str, str]:
        return dict(self._rows("select held_key, id from dbjobq_jobs where held_key is not null"))

    def sound(self) -> bool:
        """What runs is held by somebody, and nothing else is."""
        return not self._rows("select id from dbjobq_jobs where (status = 'running') <> (expires_at is not null)")


NOW = "round((julianday('now') - 2440587.5) * 86400, 3)"


@contextmanager
def backstage_of(address: str) -> Generator[Backstage]:
    """Backstage of the database at an address."""
    if address.startswith("sqlite:"):
        connection = sqlite3.connect(address.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
        try:
            yield OnSqlite(connection)
        finally:
            connection.close()
    else:
        with Database(address) as database:
            yield OnPostgres(database)
