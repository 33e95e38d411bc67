"""The process's connections to PostgreSQL: the pools for the sync and the async side, and connections beside them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from math import ceil
from typing import Any, Final, NamedTuple, TypedDict

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from dbjobq.checks import check_seconds
from dbjobq.errors import ConfigError
from dbjobq.storage.postgres.connect.deadline import Cutter, Deadline, cut_at
from dbjobq.storage.postgres.connect.group_commit import GroupCommit
from dbjobq.storage.postgres.connect.pool import AsyncPool, Pool
from dbjobq.storage.postgres.connect.way import AsyncConnection, Conninfo, SyncConnection, Way
from dbjobq.storage.postgres.statements import PIN, PINNED, UNPIN

__all__ = ["Connections"]

KEPT_ALIVE: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",  # longer than the client's: it counts, too, while a worker is too busy to read
}
"""Keepalives for the server's end of a worker's connection. By default the server keeps the locks of a machine that
vanished for two hours. A DSN's own options win."""

_WHO: Final = "select pg_backend_pid()"
_UNTOLD: Final = (
    "the DSN leads through a pooler such as PgBouncer: give a direct DSN for listening, too (listen_conninfo, "
    "--listen-dsn, DBJOBQ_LISTEN_DSN), or, where there is no direct way, the same one, and workers only poll"
)


class Connections:
    """Pools, made when first needed: one for threads, one for each event loop; made anew in a forked child.

    Args:
        conninfo: A DSN, a function that returns one, a pool whose connections are used and never closed here, or None
            (see `resolve_conninfo`).
        listen_conninfo: A direct DSN where `conninfo` leads to a pooler such as PgBouncer. Then nothing is kept in a
            session, and no statement is prepared.
        schema: The tables' schema, for the text of errors.
        timeout: Seconds to wait for a connection; also the time that a producer's whole call has.
        max_size: Connections in each pool.
    """

    def __init__(
        self,
        conninfo: Conninfo | ConnectionPool[Any] | AsyncConnectionPool[Any] | None,
        *,
        listen_conninfo: Conninfo | None,
        schema: str,
        timeout: float,
        max_size: int,
    ) -> None:
        self.schema = schema
        self.timeout = check_seconds(timeout, "timeout", above_zero=True)
        self._max_size = max_size
        self._cutter = Cutter(self.timeout)
        self._drained_at = float("-inf")
        self._adrained_at: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._loops: dict[asyncio.AbstractEventLoop, _LoopsOwn] = {}
        self._pinned: weakref.WeakSet[SyncConnection | AsyncConnection] = weakref.WeakSet()
        self._parents: object = None
        self._reached = False
        """Whether this process has ever reached the server: if so, an outage is waited out."""
        self._theirs: ConnectionPool[Any] | AsyncConnectionPool[Any] | None = None
        self._their_loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        if isinstance(conninfo, ConnectionPool | AsyncConnectionPool):
            self._theirs = conninfo
            if not isinstance(conninfo.conninfo, str) or callable(conninfo.kwargs):
                raise ConfigError("the pool makes its DSN on the fly: give PostgresStorage the function that does")
            conninfo = make_conninfo(conninfo.conninfo, **_libpq_options(conninfo.kwargs or {}))
        elif conninfo is not None and not isinstance(conninfo, str) and not callable(conninfo):
            raise TypeError(
                f"conninfo={conninfo!r}: must be a DSN, a function that returns one, or a psycopg_pool pool"
            )
        self.pooled = listen_conninfo is not None
        """Whether the settings say that a pooler is on the way."""
        self.way = Way(conninfo, pooled=self.pooled)
        self.direct = self.way if listen_conninfo is None else Way(listen_conninfo)
        _all.add(self)

    @property
    def says_its_needs(self) -> bool:
        """Whether connections have the settings of `way.NEEDED`: not those of a pooler, nor of a user's own pool."""
        return self._theirs is None and not self.way.pooled

    def arguments(self) -> dict[str, Any]:
        """Return the arguments by which another process makes the same, with pools of its own."""
        return {
            "conninfo": self.way.given,
            "listen_conninfo": self.direct.given if self.pooled else None,
            "schema": self.schema,
            "timeout": self.timeout,
            "max_size": self._max_size,
        }

    # For threads.

    @contextmanager
    def connection(
        self, deadline: Deadline | None = None, *, alone: bool = False, pinned: bool | None = None
    ) -> Generator[SyncConnection]:
        """Lend a connection from the pool; it is cut at the deadline. In autocommit unless the pool is the user's.

        Args:
            deadline: When to cut it; None for never.
            alone: Make a new connection instead, in autocommit, and close it afterwards.
            pinned: Whether its plans are to be pinned (`PINNED`), as a worker's are; None if that does not matter. Not
                on connections of a user's own pool, and not behind a pooler.
        """
        pool = None if alone else self._sync_pool()
        if pool is None:
            connection = self.connect(deadline)
        else:
            connection = pool.getconn(None if deadline is None else deadline.left)
        cutter = self._cutter
        try:
            if deadline is not None:
                cutter.watch(connection, deadline)
            if pool is self._pool and (said := self._pinning(connection, pinned=pinned)):
                connection.execute(said)
            with connection if pool is not None and pool is self._theirs else nullcontext():
                yield connection
        finally:
            if deadline is not None:
                cutter.dismiss(deadline)
            if pool is None:
                connection.close()
            else:
                pool.putconn(connection)

    def _pinning(self, connection: SyncConnection | AsyncConnection, *, pinned: bool | None) -> bytes | None:
        """Return the statement that pins or unpins a connection's plans; None if that is not needed or possible."""
        if pinned is None or self.way.pooled or pinned is (connection in self._pinned):
            return None
        (self._pinned.add if pinned else self._pinned.discard)(connection)
        return PIN if pinned else UNPIN

    def _sync_pool(self) -> Pool | ConnectionPool[SyncConnection]:
        if isinstance(self._theirs, ConnectionPool):
            return self._theirs
        if self._pool is None:
            with self._lock:
                self._pool = self._pool or Pool(self._open, **self._limits())
        return self._pool

    def _open(self, seconds: float) -> SyncConnection:
        """Make a connection for the pool; the first one finds out whether a pooler answers."""
        connection = self.connect(deadline := Deadline(seconds))
        if not self._reached:
            try:
                with self._cutter.over(connection, deadline):
                    self._heed(connection, connection.execute(_WHO).fetchone())
            except BaseException:
                connection.close()
                raise
        elif self.way.pooled:  # another connection has found that out while this one was made
            connection.prepare_threshold = None
        return connection

    def heal(self, since: float) -> None:
        """Close the pool's connections, unless that was done since then: if one is dead the others may be.

        They are not probed first, because a black-holed connection would hang the probe.
        """
        if self._drained_at < since:
            self._drained_at = time.monotonic()
            if (pool := self._theirs if isinstance(self._theirs, ConnectionPool) else self._pool) is not None:
                pool.drain()

    def connect(self, deadline: Deadline | None = None) -> SyncConnection:
        """Return a new connection, which no pool shares."""
        return self.way.connect(**self._within(deadline))

    def connect_directly(self, deadline: Deadline | None = None) -> SyncConnection:
        """Return a new connection past the pooler, which no pool shares."""
        return self.direct.connect(**self._within(deadline))

    def pooler(self) -> bool:
        """Tell whether a pooler answers."""
        with self.connection() as connection:
            return _is_pooler(connection, connection.execute(_WHO).fetchone())

    def close(self) -> None:
        """Close the pool for threads, unless it is the user's."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    # For event loops.

    @asynccontextmanager
    async def aconnection(
        self, deadline: Deadline | None = None, *, alone: bool = False, pinned: bool | None = None
    ) -> AsyncGenerator[AsyncConnection]:
        """See `connection`, for the running loop's pool."""
        pool = None if alone else await self._async_pool()
        if pool is None:
            connection = await self.async_connect(**self._within(deadline))
        else:
            connection = await pool.getconn(None if deadline is None else deadline.left)
        try:
            with nullcontext() if deadline is None else cut_at(connection, deadline):
                if isinstance(pool, AsyncPool) and (said := self._pinning(connection, pinned=pinned)):
                    await connection.execute(said)
                async with connection if pool is not None and pool is self._theirs else nullcontext():
                    yield connection
        finally:
            if pool is None:
                await connection.close()
            elif isinstance(pool, AsyncPool):
                pool.putconn(connection)
            else:
                await pool.putconn(connection)

    async def _async_pool(self) -> AsyncPool | AsyncConnectionPool[AsyncConnection]:
        return self._their_pool(asyncio.get_running_loop()) or (await self._loops_own()).pool

    def _their_pool(self, loop: asyncio.AbstractEventLoop) -> AsyncConnectionPool[AsyncConnection] | None:
        if not isinstance(self._theirs, AsyncConnectionPool):
            return None
        self._their_loop = self._their_loop or weakref.ref(loop)
        return self._theirs if self._their_loop() is loop else None  # a worker in this process has a loop of its own

    async def _loops_own(self) -> _LoopsOwn:
        """Return the running loop's pool, made when first needed; close the pools that closed loops have left."""
        loop = asyncio.get_running_loop()
        own = self._loops.get(loop)
        if own is None or own.pool.closed:
            for other in tuple(self._loops):
                if other.is_closed() and (left := self._loops.pop(other, None)) is not None:
                    left.pool.close()
            pool = AsyncPool(self._aopen, **self._limits())
            end = _close_with_the_loop(pool)
            await anext(end)
            own = self._loops[loop] = _LoopsOwn(pool, GroupCommit(pool), end)
        return own

    async def _aopen(self, seconds: float) -> AsyncConnection:
        """See `_open`."""
        connection = await self.async_connect(**self._within(deadline := Deadline(seconds)))
        if not self._reached:
            try:
                with cut_at(connection, deadline):
                    self._heed(connection, await (await connection.execute(_WHO)).fetchone())
            except BaseException:
                await connection.close()
                raise
        elif self.way.pooled:  # another connection has found that out while this one was made
            connection.prepare_threshold = None
        return connection

    async def group_commit(self) -> GroupCommit | None:
        """Return the connection that the running loop's calls may share; None where the pool is the user's own."""
        if self._their_pool(asyncio.get_running_loop()) is not None:
            return None
        return (await self._loops_own()).group_commit

    async def aheal(self, since: float) -> None:
        """See `heal`, for the running loop's pool."""
        loop = asyncio.get_running_loop()
        if self._adrained_at.get(loop, float("-inf")) < since:
            self._adrained_at[loop] = time.monotonic()
            pool = await self._async_pool()
            if isinstance(pool, AsyncPool):
                pool.drain()
            else:
                await pool.drain()

    async def async_connect(self, **kwargs: Any) -> AsyncConnection:
        """Return a new connection, which no pool shares."""
        return await self.way.aconnect(**kwargs)

    async def connect_session(self) -> AsyncConnection:
        """Return a worker's connection, its plans pinned (behind a pooler they are pinned by each transaction).

        Raises:
            ConfigError: A pooler answers, and the settings name no direct DSN.
        """
        if self.pooled:
            return await self.async_connect()
        connection = await self.way.aconnect(first=KEPT_ALIVE, last=PINNED, prepare_threshold=0)
        if _is_pooler(connection, await (await connection.execute(_WHO, prepare=False)).fetchone()):
            await connection.close()
            raise ConfigError(_UNTOLD)
        return connection

    async def connect_listener(self) -> AsyncConnection:
        """Return a direct connection for LISTEN."""
        return await self.direct.aconnect(prepare_threshold=None)

    async def aclose(self) -> None:
        """Close the running loop's pool, unless it is the user's."""
        own = self._loops.pop(asyncio.get_running_loop(), None)
        if own is not None:
            await own.end.aclose()

    def _within(self, deadline: Deadline | None) -> dict[str, Any]:
        """Return arguments that bound the making of a connection: libpq and psycopg give as much time to each host."""
        if deadline is None:
            return {}
        hosts = str(conninfo_to_dict(self.way.conninfo).get("host") or "").count(",") + 1
        return {"connect_timeout": max(ceil(deadline.left / hosts), 2)}

    def _heed(self, connection: SyncConnection | AsyncConnection, row: tuple[Any, ...] | None) -> None:
        """Note that the server was reached. Prepare nothing if a pooler answers: others' statements may be there."""
        if _is_pooler(connection, row):
            self.way.pooled = True
            connection.prepare_threshold = None
        self._reached = True

    def _limits(self) -> _Limits:
        return {"most": self._max_size, "timeout": self.timeout, "patient": lambda: self._reached}

    def forget_parents(self) -> None:
        """Begin anew in a forked child: the sockets are the parent's, and its locks may be held by threads not there.

        References to the parent's connections are kept: a child must not end them by collecting them.
        """
        self._parents = (self._parents, self._pool, self._loops)
        self._lock, self._cutter = threading.Lock(), Cutter(self.timeout)
        self._pool, self._loops = None, {}
        self._their_loop = None


_all: Final[weakref.WeakSet[Connections]] = weakref.WeakSet()


def _in_a_forked_child() -> None:
    for connections in tuple(_all):
        connections.forget_parents()


os.register_at_fork(after_in_child=_in_a_forked_child)


class _Limits(TypedDict):
    most: int
    timeout: float
    patient: Callable[[], bool]


class _LoopsOwn(NamedTuple):
    """The pool and the group commit of one event loop."""

    pool: AsyncPool
    group_commit: GroupCommit
    end: AsyncGenerator[None]
    """An asynchronous generator that closes the pool when it is closed itself."""


async def _close_with_the_loop(pool: AsyncPool) -> AsyncGenerator[None]:
    """Close a pool when a loop shuts its asynchronous generators down, as `asyncio.run` has it do at its end."""
    try:
        yield
    finally:
        pool.close()


def _is_pooler(connection: SyncConnection | AsyncConnection, row: tuple[Any, ...] | None) -> bool:
    """Tell from the answer to `_WHO` whether a pooler sits between: it gives its clients process ids of its own."""
    return row != (connection.info.backend_pid,)


def _libpq_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return those of `psycopg.connect`'s arguments that belong into a connection string."""
    ours = {"autocommit", "row_factory", "cursor_factory", "prepare_threshold", "context"}
    return {name: value for name, value in kwargs.items() if name not in ours}
