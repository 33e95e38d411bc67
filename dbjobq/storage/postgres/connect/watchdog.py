"""Ends connections whose answer will not come, since something in between is stuck or has forgotten them.

The kernel ends those whose other end is silent (keepalives, `tcp_user_timeout`), but not those that a pooler, a proxy
or a load balancer still acknowledges. A server that is merely slow, or waits for a lock, says so when it is asked over
another connection, and is left alone: giving up on it would leave one more backend waiting there each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

import psycopg

from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Deadline, cut, watched
from dbjobq.storage.postgres.connect.way import AsyncConnection, SyncConnection
from dbjobq.storage.postgres.statements import Statements

__all__ = ["Guard"]

_Waits: TypeAlias = set[tuple[SyncConnection | AsyncConnection, float]]

PATIENCE: Final = 20.0
"""Seconds that an answer may take before the server is asked whether it is still at it; less where leases are short."""
SHARE: Final = 0.4
"""The share of a worker's life that it may take at most: half as long again, and its connection is given up."""
BEHIND_A_POOLER: Final = 60.0
"""Seconds where it cannot be asked: a pooler may make us wait for one of its connections."""
TAKES: Final = 5.0
"""Seconds that asking may take."""
HALFWAY: Final = 15
"""How many times as long a server may wait for the rest of what it is sent: much may be on its way, slowly."""


class Guard:
    """Of one worker's connections, on its loop; `waiting` may be used from any thread.

    Args:
        connections: To reach the server another time.
        statements: For the question.
        ttl: The worker's life without a heartbeat, in seconds.
    """

    def __init__(self, connections: Connections, statements: Statements, ttl: float = float("inf")) -> None:
        self._connections, self._statements, self._ttl = connections, statements, ttl
        self._since: dict[SyncConnection | AsyncConnection, float] = {}

    @contextmanager
    def waiting(self, connection: SyncConnection | AsyncConnection) -> Generator[None]:
        """Expect an answer on this connection while the block runs: that raises OperationalError if none will come."""
        self._since[connection] = time.monotonic()
        try:
            yield
        finally:
            self._since.pop(connection, None)

    async def run(self) -> None:
        """Look after them until cancelled.

        A connection is cut when two looks in a row, a quarter of the patience apart, find nobody at work for it. One
        may come just when an answer is on its way, or between two statements of one exchange.
        """
        patience = BEHIND_A_POOLER if self._connections.pooled else min(PATIENCE, self._ttl * SHARE)
        doubted: _Waits = set()
        while True:
            await asyncio.sleep(patience / 4)
            idle: _Waits = set()
            for connection, since in tuple(self._since.items()):
                if time.monotonic() - since < patience or await self._is_at_it(connection):
                    continue
                if self._since.get(connection) == since:  # it did not come while that was asked
                    idle.add((connection, since))
                    if (connection, since) in doubted:
                        cut(connection)
            doubted = idle

    async def _is_at_it(self, connection: SyncConnection | AsyncConnection) -> bool:
        """Tell whether the server works for a connection; not if it cannot be asked."""
        if self._connections.pooled:
            return False
        with suppress(psycopg.Error):
            other = await self._connections.async_connect()
            with watched(other, Deadline(TAKES)):
                async with other:
                    asked = {"pid": connection.info.backend_pid, "rest": PATIENCE * HALFWAY}
                    return (await (await other.execute(self._statements["at_work"], asked)).fetchone()) is not None
        return False
