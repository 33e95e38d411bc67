"""Connection pools without threads or tasks of their own: the call that needs a connection makes it.

So there is nothing that a program which ends, or an event loop, would have to wait for or to stop, and nothing that a
forked child would miss. A call that finds the server away tries again by itself, twice a second, for as long as it has
time. The connection that was used last is lent first: at rest a pool is little more than a lock around a list
(docs/decisions/0011).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from dbjobq.storage.postgres.connect.stock import Reaching, Stock

__all__ = ["AsyncPool", "Pool"]


class Pool(Stock["psycopg.Connection[Any]"]):
    """A pool for threads.

    Args:
        connect: Makes a connection within a number of seconds.
        most: How many connections there may be.
        timeout: Seconds to wait for a connection, unless a call says otherwise.
        patient: Tells whether to wait for a server that cannot be reached.
    """

    def __init__(
        self,
        connect: Callable[[float], psycopg.Connection[Any]],
        *,
        most: int,
        timeout: float,
        patient: Callable[[], bool],
    ) -> None:
        super().__init__(most, timeout, patient)
        self._connect = connect
        self._lock = threading.Lock()

    def getconn(self, within: float | None = None) -> psycopg.Connection[Any]:
        """Lend a connection. Raises PoolTimeout, and the errors of `connect` if there is no patience."""
        with self._lock:
            if self._idle:
                return self._idle.pop()[0]
            came = threading.Event()
            turn = self._ask(came.set)
        reaching = self._within(within)
        try:
            came.wait(reaching.seconds)
            self._check(turn, reaching.seconds)
            return turn.given or self._make(reaching)
        except BaseException:
            with self._lock:
                self._give_up(turn)
            raise

    def _make(self, reaching: Reaching) -> psycopg.Connection[Any]:
        while True:
            try:
                connection = self._connect(reaching.left)
            except psycopg.OperationalError as error:
                time.sleep(reaching.after(error))
            else:
                with self._lock:
                    return self._keep(connection)

    def putconn(self, connection: psycopg.Connection[Any]) -> None:
        """Take a connection back."""
        with self._lock:
            self._take_back(connection)

    def drain(self) -> None:
        """Close all connections; new ones are made."""
        with self._lock:
            self._let_go()

    def close(self) -> None:
        """Close all connections; none is lent any more."""
        with self._lock:
            self._close()


class AsyncPool(Stock["psycopg.AsyncConnection[Any]"]):
    """A pool for one event loop; see `Pool`. Only `getconn` waits."""

    def __init__(
        self,
        connect: Callable[[float], Awaitable[psycopg.AsyncConnection[Any]]],
        *,
        most: int,
        timeout: float,
        patient: Callable[[], bool],
    ) -> None:
        super().__init__(most, timeout, patient)
        self._connect = connect

    async def getconn(self, within: float | None = None) -> psycopg.AsyncConnection[Any]:
        """Lend a connection. Raises PoolTimeout, and the errors of `connect` if there is no patience."""
        if self._idle:
            return self._idle.pop()[0]
        came = asyncio.Event()
        turn = self._ask(came.set)
        reaching = self._within(within)
        try:
            if not turn.come:
                await _at_most(reaching.seconds, came)
            self._check(turn, reaching.seconds)
            return turn.given or await self._make(reaching)
        except BaseException:
            self._give_up(turn)
            raise

    async def _make(self, reaching: Reaching) -> psycopg.AsyncConnection[Any]:
        while True:
            try:
                connection = await self._connect(reaching.left)
            except psycopg.OperationalError as error:
                await asyncio.sleep(reaching.after(error))
            else:
                return self._keep(connection)

    def putconn(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Take a connection back."""
        self._take_back(connection)

    @asynccontextmanager
    async def connection(self, within: float | None = None) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """Lend a connection for a block."""
        connection = await self.getconn(within)
        try:
            yield connection
        finally:
            self.putconn(connection)

    def drain(self) -> None:
        """Close all connections; new ones are made."""
        self._let_go()

    def close(self) -> None:
        """Close all connections; none is lent any more."""
        self._close()


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
