"""How this process reaches a SQLite database: one writer at a time, errors in our words, and word of what it does."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, exc

from dbjobq.errors import ConfigError, SchemaError, StorageUnavailable
from dbjobq.storage.sqlite_steps import Steps
from dbjobq.storage.values import Notice

__all__ = ["Sqlite"]

R = TypeVar("R")

PATIENCE: Final = 60.0
"""Seconds to wait while another process writes."""
_ALONE: Final[dict[str, Any]] = {"poolclass": StaticPool, "pool_reset_on_return": None}
"""One connection for everybody: what a user has begun on it is not ours to roll back."""
_NO_TABLES: Final = re.compile(r"no such (table|column)|no column named")
_REFUSED: Final = re.compile(r"unable to open|readonly|not a database|created in a thread")


class Sqlite:
    """Makes transactions. A file gets connections of its own; a database in memory has the one that it lives in.

    Args:
        url: Its URL.
        theirs: The user's engine for it, which stays as it is.

    Raises:
        ConfigError: It is in memory, and the engine gives each thread another one.
    """

    def __init__(self, url: URL, theirs: Engine | None) -> None:
        self.path = url.database or ":memory:"
        self._in_memory = ":memory:" in self.path or url.query.get("mode") == "memory"
        self.url = None if self._in_memory else url.render_as_string(hide_password=False)
        """For other processes; None if it is in this one's memory."""
        self._shared = self._in_memory and theirs is not None
        self.engine = self._make_engine(url, theirs)
        self._turn = threading.Lock()
        self._has_tables = False
        self._pid = os.getpid()
        self._inherited: list[object] = []
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[Notice]]] = set()

    def _make_engine(self, url: URL, theirs: Engine | None) -> Engine:
        if not self._in_memory:
            engine = create_engine(url, connect_args={"timeout": PATIENCE})
            event.listen(engine, "connect", _prepare)
            return engine
        if theirs is None:
            return create_engine(url, connect_args={"check_same_thread": False}, **_ALONE)
        if not isinstance(theirs.pool, StaticPool):
            raise ConfigError(
                "this engine makes a database in memory for each thread: give it poolclass=StaticPool and "
                'connect_args={"check_same_thread": False}, or use a file'
            )
        with theirs.connect() as connection:
            shared: Any = connection.connection.driver_connection
        return create_engine(url, creator=lambda: shared, **_ALONE)

    # Transactions.

    def read(self, work: Callable[[Steps], R]) -> R:
        """Do what only looks."""
        with self._opened(writes=False) as connection:
            return work(Steps(connection))

    def write(self, work: Callable[[Steps], R]) -> R:
        """Do all of `work` or nothing, while nobody else writes. Durable when this returns."""
        with self._opened(writes=True) as connection:
            return self._alone(connection, work)

    def join(self, connection: Connection, work: Callable[[Steps], R]) -> R:
        """Do it in the caller's own transaction, which may be writing already: so nothing here waits to write."""
        with self._translated(), self._turn if self._in_memory else nullcontext():
            steps = Steps(connection)
            if not self._has_tables:
                steps.create()
            return work(steps)

    @contextmanager
    def _opened(self, *, writes: bool) -> Generator[Connection]:
        with self._translated():
            self._prepare_tables()
            with self._turn if writes or self._in_memory else nullcontext(), self.engine.connect() as connection:
                yield connection

    def _prepare_tables(self) -> None:
        """Make the tables, unless they are there; in a forked child, have connections of its own first."""
        if self._pid != os.getpid():
            if self._in_memory:
                raise ConfigError("a database in memory belongs to the process that made it: use a file")
            self._inherited.append(self.engine.pool)  # not to be closed here: it is the parent's
            self.engine.dispose(close=False)
            self._turn, self._pid = threading.Lock(), os.getpid()
        if not self._has_tables:
            with self._turn, self.engine.connect() as connection:
                self._alone(connection, Steps.create)
            self._has_tables = True

    def _alone(self, connection: Connection, work: Callable[[Steps], R]) -> R:
        driver: Any = connection.connection.driver_connection
        if driver.in_transaction:
            raise StorageUnavailable("a transaction is open on the only connection of this database in memory")
        connection.exec_driver_sql("begin immediate")
        answer = work(Steps(connection))
        connection.commit()
        return answer

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            said = f"{self.path}: {error.orig}"
            if _NO_TABLES.search(said):
                raise SchemaError(
                    f"the tables of dbjobq are gone, or another release's; make them anew: {said}"
                ) from error
            if _REFUSED.search(said):
                raise ConfigError(f"this SQLite database cannot be used: {said}") from error
            if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
                raise
            raise StorageUnavailable(f"SQLite did not answer: {said}") from error
        except exc.TimeoutError as error:
            raise StorageUnavailable(f"no connection to {self.path} was free: {error}") from error

    def close(self) -> None:
        """Close the connections. A database in memory is gone then, unless it is in the user's engine."""
        if not self._shared and self._pid == os.getpid():
            self.engine.dispose()
            self._has_tables = self._has_tables and not self._in_memory

    # Word of what happens here.

    def tell(self, notice: Notice) -> None:
        """Tell the workers of this process; from any thread."""
        for loop, notices in tuple(self._listeners):
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(notices.put_nowait, notice)

    async def notices(self) -> AsyncIterator[Notice]:
        """Yield what is told from now on; a `work` notice first."""
        mine = asyncio.get_running_loop(), asyncio.Queue[Notice]()
        self._listeners.add(mine)
        try:
            yield Notice("work")
            while True:
                yield await mine[1].get()
        finally:
            self._listeners.discard(mine)


def _prepare(connection: Any, _record: object) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
