"""A watchdog for a worker's connections: ends those whose answer will not come.

The kernel ends connections whose other end is silent (keepalives, `tcp_user_timeout`), but not those that a pooler, a
proxy or a load balancer still acknowledges though it is stuck or has forgotten them. A server that is merely slow, or
waits for a lock, says so when it is asked over another connection, and is left alone: giving up would leave one more
backend waiting there each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

import psycopg

from dbjobq.service import Service
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Deadline, cut, cut_at
from dbjobq.storage.postgres.connect.way import AsyncConnection, SyncConnection
from dbjobq.storage.postgres.statements import Statements

__all__ = ["Watchdog"]

_Waits: TypeAlias = set[tuple[SyncConnection | AsyncConnection, float]]

ANSWER_PATIENCE: Final = 20.0
"""Seconds that an answer may take before the server is asked whether it still works on it; less with short leases."""
ANSWER_SHARE: Final = 0.4
"""The share of a worker's life (`ttl`) that an answer may take; after half as long again its connection is cut."""
BEHIND_A_POOLER: Final = 60.0
"""Seconds that an answer may take behind a pooler, where the server cannot be asked, and may make a client wait."""
TAKES: Final = 5.0
"""Seconds that asking the server may take."""
HALFWAY: Final = 15
"""How many times `ANSWER_PATIENCE` a server may wait for the rest of an exchange: a large result may be on its way."""


class Watchdog(Service):
    """Guards one worker's connections, on its event loop; `waiting` may be used from any thread.

    Args:
        connections: Makes the connection over which the server is asked.
        statements: Has the question.
        ttl: The worker's life without a heartbeat, in seconds.
    """

    name = "guard"

    def __init__(self, connections: Connections, statements: Statements, ttl: float = float("inf")) -> None:
        self._connections, self._statements, self._ttl = connections, statements, ttl
        self._since: dict[SyncConnection | AsyncConnection, float] = {}

    @contextmanager
    def waiting(self, connection: SyncConnection | AsyncConnection) -> Generator[None]:
        """Expect an answer on this connection while the block runs, which raises OperationalError if none will come."""
        self._since[connection] = time.monotonic()
        try:
            yield
        finally:
            self._since.pop(connection, None)

    async def run(self) -> None:
        """Guard the connections until cancelled.

        A connection is cut when two checks in a row, a quarter of the patience apart, find the server not at work for
        it. A single check may fall just as an answer is arriving, or between two statements of one exchange.
        """
        patience = BEHIND_A_POOLER if self._connections.pooled else min(ANSWER_PATIENCE, self._ttl * ANSWER_SHARE)
        doubted: _Waits = set()
        while True:
            await asyncio.sleep(patience / 4)
            idle: _Waits = set()
            for connection, since in tuple(self._since.items()):
                if time.monotonic() - since < patience or await self._is_at_it(connection):
                    continue
                if self._since.get(connection) == since:  # the answer did not come while the server was asked
                    idle.add((connection, since))
                    if (connection, since) in doubted:
                        cut(connection)
            doubted = idle

    async def _is_at_it(self, connection: SyncConnection | AsyncConnection) -> bool:
        """Tell whether the server works for a connection; False if it cannot be asked."""
        if self._connections.pooled:
            return False
        with suppress(psycopg.Error):
            other = await self._connections.async_connect()
            with cut_at(other, Deadline(TAKES)):
                async with other:
                    asked = {"pid": connection.info.backend_pid, "rest": ANSWER_PATIENCE * HALFWAY}
                    return (await (await other.execute(self._statements["at_work"], asked)).fetchone()) is not None
        return False
