"""How this process reaches PostgreSQL: connection settings, and the pools for the sync and the async side."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from dbjobq.errors import ConfigError
from dbjobq.storage.lane import Lane
from dbjobq.storage.statements import SESSION_SETTINGS

__all__ = ["Connections", "cut", "resolve_conninfo"]

SyncConnection: TypeAlias = psycopg.Connection[Any]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[Any]

BOUNDED: Final = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; keepalives do not run while data is unacknowledged
    "application_name": "dbjobq",
}
"""What libpq leaves unbounded. A DSN's own values win."""


def resolve_conninfo(conninfo: str | None) -> str:
    """Return a connection string that has bounded timeouts.

    Args:
        conninfo: A DSN or URL; None reads `DBJOBQ_DSN`, then libpq's `PG*` variables (contract §7).

    Raises:
        ConfigError: It cannot be parsed.
    """
    given = os.environ.get("DBJOBQ_DSN", "") if conninfo is None else conninfo
    try:
        known: dict[str, Any] = {**BOUNDED, **conninfo_to_dict(given)}
        return make_conninfo(**known)
    except psycopg.ProgrammingError as error:
        said = re.sub(r'"[^"]*"', '"…"', str(error).strip())  # libpq quotes what it cannot read: perhaps a password
        raise ConfigError(f"the DSN cannot be read: {said}") from None


def cut(connection: SyncConnection | AsyncConnection | None) -> None:
    """Make a call that waits on this connection fail now, from any thread.

    Cancelling does not do it while the network swallows packets: it asks the server first, and waits for an answer.
    """
    if connection is None or connection.closed:
        return
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as sock:
        sock.shutdown(socket.SHUT_RDWR)


class Connections:
    """Pools, made when first needed: one for threads, one for each event loop; made anew in a forked child.

    Args:
        conninfo: A DSN, a pool whose connections are used and never closed here, or None (see `resolve_conninfo`).
        listen_conninfo: A direct DSN where `conninfo` leads to a pooler such as PgBouncer: then nothing is kept in a
            session, no statement is prepared.
        schema: For the errors' words.
        timeout: Seconds to wait for a connection.
        max_size: Connections in each pool.
    """

    def __init__(
        self,
        conninfo: str | ConnectionPool[Any] | AsyncConnectionPool[Any] | None,
        *,
        listen_conninfo: str | None,
        schema: str,
        timeout: float,
        max_size: int,
    ) -> None:
        self.pooled = listen_conninfo is not None
        self.schema = schema
        self._timeout, self._max_size = timeout, max_size
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._pool: ConnectionPool[SyncConnection] | None = None
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionPool[AsyncConnection]]
        self._pools = weakref.WeakKeyDictionary()
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lane] = weakref.WeakKeyDictionary()
        self._theirs: ConnectionPool[Any] | AsyncConnectionPool[Any] | None = None
        self._their_loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        if isinstance(conninfo, ConnectionPool | AsyncConnectionPool):
            self._theirs = conninfo
            if not isinstance(conninfo.conninfo, str) or callable(conninfo.kwargs):
                raise ConfigError("the pool makes its DSN on the fly: give PostgresStorage a DSN of its own")
            conninfo = make_conninfo(conninfo.conninfo, **_libpq_options(conninfo.kwargs or {}))
        elif conninfo is not None and not isinstance(conninfo, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            raise TypeError(f"conninfo={conninfo!r}: must be a DSN or a psycopg_pool pool")
        self.conninfo = resolve_conninfo(conninfo)
        self.listen_conninfo = resolve_conninfo(listen_conninfo) if listen_conninfo is not None else self.conninfo
        self._kwargs: dict[str, Any] = {"autocommit": True}
        if self.pooled:
            self._kwargs["prepare_threshold"] = None

    def arguments(self) -> dict[str, Any]:
        """Return what makes the same for another process, with pools of its own."""
        return {
            "conninfo": self.conninfo,
            "listen_conninfo": self.listen_conninfo if self.pooled else None,
            "schema": self.schema,
            "timeout": self._timeout,
            "max_size": self._max_size,
        }

    # For threads.

    @contextmanager
    def connection(self) -> Generator[SyncConnection]:
        """Lend a connection from the pool. It is in autocommit unless it is the user's own pool's."""
        pool = self._sync_pool()
        if pool is self._theirs:
            with pool.connection() as connection:
                yield connection
            return
        connection = pool.getconn()  # without the pool's own block, which commits: a third of the cost of lending
        try:
            yield connection
        finally:
            pool.putconn(connection)

    def _sync_pool(self) -> ConnectionPool[SyncConnection]:
        if isinstance(self._theirs, ConnectionPool):
            return self._theirs
        pool = self._pool
        if pool is None or self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():  # a fork must not share its parent's sockets
                    self._pid, self._pool = os.getpid(), None
                if self._pool is None:
                    self.connect().close()  # so that a wrong DSN says so at once, not after the pool's timeout
                    self._pool = ConnectionPool(
                        self.conninfo, kwargs=self._kwargs, open=True, name="dbjobq", **self._limits()
                    )
                pool = self._pool
        return pool

    def heal(self) -> None:
        """Drop the pool's connections that are gone: after a restart of the server that is all of them."""
        self._sync_pool().check()

    def connect(self) -> SyncConnection:
        """Return a new connection of one's own."""
        return psycopg.connect(self.conninfo, **self._kwargs)

    def connect_directly(self) -> SyncConnection:
        """Return a new connection of one's own that goes past the pooler."""
        return psycopg.connect(self.listen_conninfo, **self._kwargs)

    def pooler(self) -> bool:
        """Tell whether a pooler answers: it gives its clients process ids of its own making."""
        with self.connection() as connection:
            return connection.execute("select pg_backend_pid()").fetchone() != (connection.info.backend_pid,)

    def close(self) -> None:
        """Close the pool for threads, unless it is the user's."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.close()

    # For event loops.

    async def async_pool(self) -> AsyncConnectionPool[AsyncConnection]:
        """Return the running loop's pool."""
        loop = asyncio.get_running_loop()
        if isinstance(self._theirs, AsyncConnectionPool):
            self._their_loop = self._their_loop or weakref.ref(loop)
            if self._their_loop() is loop:  # a worker in this process has a loop of its own
                return self._theirs
        pool = self._pools.get(loop)
        if pool is None:
            await (await self.async_connect()).close()
            pool = AsyncConnectionPool(
                self.conninfo, kwargs=self._kwargs, open=False, name="dbjobq-async", **self._limits()
            )
            pool = self._pools.setdefault(loop, pool)
            await pool.open()
        return pool

    async def lane(self) -> Lane | None:
        """Return the connection that the running loop's calls may share; None where the pool is the user's own."""
        pool, loop = await self.async_pool(), asyncio.get_running_loop()
        if pool is self._theirs:
            return None
        lane = self._lanes.get(loop)
        if lane is None:
            lane = self._lanes[loop] = Lane(pool)
        return lane

    async def aheal(self) -> None:
        """See `heal`, for the running loop's pool."""
        await (await self.async_pool()).check()

    async def async_connect(self, **kwargs: Any) -> AsyncConnection:
        """Return a new connection of one's own."""
        return await psycopg.AsyncConnection.connect(self.conninfo, **{**self._kwargs, **kwargs})

    async def connect_session(self) -> AsyncConnection:
        """Return a worker's connection, its plans pinned (behind a pooler they are pinned by each transaction)."""
        if self.pooled:
            return await self.async_connect()
        own = conninfo_to_dict(self.conninfo).get("options") or ""
        pinned = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        return await self.async_connect(prepare_threshold=0, options=f"{own} {pinned}".strip())

    async def connect_listener(self) -> AsyncConnection:
        """Return a direct connection for LISTEN."""
        return await psycopg.AsyncConnection.connect(self.listen_conninfo, autocommit=True, prepare_threshold=None)

    async def aclose(self) -> None:
        """Close the running loop's pool, unless it is the user's."""
        loop = asyncio.get_running_loop()
        self._lanes.pop(loop, None)
        pool = self._pools.pop(loop, None)
        if pool is not None:
            await pool.close()

    def _limits(self) -> dict[str, Any]:
        # The pool's own reconnect_timeout doubles to minutes; at 5 s a request starts the next attempt.
        return {"min_size": 1, "max_size": self._max_size, "timeout": self._timeout, "reconnect_timeout": 5.0}


def _libpq_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return those of `psycopg.connect`'s arguments that belong in a connection string."""
    ours = {"autocommit", "row_factory", "cursor_factory", "prepare_threshold", "context"}
    return {name: value for name, value in kwargs.items() if name not in ours}
