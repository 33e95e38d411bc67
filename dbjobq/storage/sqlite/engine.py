"""The process's access to a SQLite database: one writer at a time, errors translated, workers of the process woken."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, Table, create_engine, event, exc

from dbjobq.errors import ConfigError, SchemaError, StorageUnavailable
from dbjobq.storage.alchemy import sqlalchemy_async_connection, sqlalchemy_connection

__all__ = ["WAKES_WORKERS", "Sqlite", "SqliteRequest"]

R = TypeVar("R")

WAKES_WORKERS: Final = "dbjobq: a job waits"
"""A key in a connection's `info`, set once a job waits that did not before: the process's workers are woken then."""

WRITER_WAIT: Final = 60.0
"""Seconds to wait while another process writes."""


class Sqlite:
    """Makes transactions. A file gets connections of its own; a database in memory has the one that it lives in.

    Args:
        url: The database's URL.
        theirs: The user's engine for it, if there is one; it is not changed.
        table: The table, which is made when it is first needed.

    Raises:
        ConfigError: The database is in memory, and the engine gives each thread another one.
    """

    def __init__(self, url: URL, theirs: object, table: Table) -> None:
        self.path, self._table, self._has_table = url.database or ":memory:", table, False
        self._in_memory = ":memory:" in self.path or url.query.get("mode") == "memory"
        self.url = None if self._in_memory else url.render_as_string(hide_password=False)
        """The path by which other processes reach the database; None if it is in this process's memory."""
        self._is_theirs = self._in_memory and isinstance(theirs, Engine)
        self.engine = _in_memory(url, theirs) if self._in_memory else _on_file(url)
        self._turn, self._pid = threading.RLock(), os.getpid()
        self._inherited: list[object] = []
        self.sleepers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}  # what wakes this process's workers

    def run(self, work: Callable[[Connection], R], *, writes: bool = True) -> R:
        """Do `work` in a transaction of its own, as the only writer if it writes. Durable when this returns."""
        self._leave_parent()
        writes = writes or not self._has_table
        turn = self._turn if writes or self._in_memory else nullcontext()
        with self._translated(), turn, self.engine.connect() as connection:
            if getattr(connection.connection.driver_connection, "in_transaction", False):
                raise StorageUnavailable("a transaction is open on the only connection of this database in memory")
            if writes:
                connection.exec_driver_sql("begin immediate")
            answer = self.join(connection, work)
            connection.commit()
        self._has_table = True
        return answer

    def join(self, connection: Connection | None, work: Callable[[Connection], R]) -> R:
        """Do `work` in a transaction that is open already: one begun here, or the caller's own, which may be writing.

        Workers are woken before the commit: their next claim has to wait for it anyway.
        """
        if connection is None or connection.dialect.name != "sqlite":
            raise TypeError("connection must be SQLAlchemy's Connection or Session on SQLite, async for AsyncJobQueue")
        with self._translated(), self._turn if self._in_memory else nullcontext():
            if not self._has_table:
                self._table.create(connection, checkfirst=True)
            answer = work(connection)
            if connection.info.pop(WAKES_WORKERS, False):
                for woken, loop in tuple(self.sleepers.items()):
                    with suppress(RuntimeError):  # the loop has ended
                        loop.call_soon_threadsafe(woken.set)
            return answer

    def join_callers(self, connection: Connection | None, work: Callable[[Connection], R]) -> R:
        """Do `work` in the caller's own transaction. Raises ValueError if the connection has none."""
        if connection is not None and connection.dialect.name == "sqlite":
            connection.exec_driver_sql("select 1")  # an engine's events may begin a transaction at this
            driver: Any = connection.connection.driver_connection
            if driver.isolation_level is None and not driver.in_transaction:
                raise ValueError(
                    f"connection={type(connection).__name__}: it is in autocommit, so there is no transaction to be "
                    "part of, and the job would be there at once: use one of another isolation_level, or none"
                )
        return self.join(connection, work)

    def close(self) -> None:
        """Close the connections. A database in memory is gone then, unless it is in the user's engine."""
        if not self._is_theirs and self._pid == os.getpid():
            with self._turn if self._in_memory else nullcontext():  # a thread may be in the one connection
                self.engine.dispose()
                self._has_table = False

    def _leave_parent(self) -> None:
        """Begin anew in a forked child, with connections of its own; the parent's must not be closed here."""
        if self._pid != os.getpid():
            if self._in_memory:
                raise ConfigError("a database in memory belongs to the process that made it: use a file")
            self._inherited.append(self.engine.pool)
            self.engine.dispose(close=False)
            self._turn, self._pid = threading.RLock(), os.getpid()

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            said, where = str(error.orig), f"{self.path}: {error.orig}"
            if re.search("no such (table|column)|no column named", said):
                raise SchemaError(f"dbjobq's tables are gone, or another release's: make them anew: {where}") from error
            if re.search("unable to open|readonly|not a database|created in a thread", said):
                raise ConfigError(f"this SQLite database cannot be used: {where}") from error
            if not isinstance(error, exc.OperationalError):
                raise
            raise StorageUnavailable(f"SQLite did not answer: {where}") from error


def _on_file(url: URL) -> Engine:
    engine = create_engine(url.set(drivername="sqlite"), max_overflow=-1, connect_args={"timeout": WRITER_WAIT})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        with suppress(sqlite3.OperationalError):  # locked: another process is making it so
            connection.executescript("pragma synchronous = full; pragma journal_mode = wal")

    return engine


def _in_memory(url: URL, theirs: object) -> Engine:
    """Return the engine of a database in memory. Everybody shares its one connection: nothing is rolled back on it."""
    how: dict[str, Any] = {"connect_args": {"check_same_thread": False}}
    if isinstance(theirs, Engine):
        if not isinstance(theirs.pool, StaticPool):
            wanted = 'poolclass=StaticPool and connect_args={"check_same_thread": False}'
            raise ConfigError(f"this engine gives each thread a database of its own: give it {wanted}, or use a file")
        with theirs.connect() as connection:
            shared = connection.connection.driver_connection
        how = {"creator": lambda: shared}
    return create_engine(url.set(drivername="sqlite"), poolclass=StaticPool, pool_reset_on_return=None, **how)


class SqliteRequest(NamedTuple, Generic[R]):
    """A call to SQLite, not yet made (see `storage.base.Request`)."""

    sqlite: Sqlite
    work: Callable[[Connection], R]
    writes: bool = True
    connection: object | None = None
    """The caller's own connection, in whose transaction the call is made."""

    def run(self) -> R:
        """Make the call. Raises ConfigError, SchemaError or StorageUnavailable for errors of the database."""
        if self.connection is None:
            return self.sqlite.run(self.work, writes=self.writes)
        return self.sqlite.join_callers(sqlalchemy_connection(self.connection), self.work)

    async def arun(self) -> R:
        """Make the call on a thread, so that the running event loop does not wait for another writer."""
        if self.connection is None:
            return await asyncio.to_thread(self.run)
        caller = await sqlalchemy_async_connection(self.connection)
        join = self.sqlite.join_callers
        return await caller.run_sync(join, self.work) if caller else join(None, self.work)
