"""A pool for threads, with one connection kept out of it for the next call.

To lend a connection costs a pool as much as it costs a call to use it (docs/decisions/0011).
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

__all__ = ["Lender"]

LONGEST: Final = 60.0
"""Seconds that a connection is kept for: the pool looks at the age of what comes back."""
_IDLE: Final = TransactionStatus.IDLE


class Lender:
    """Lends connections as the pool does, and keeps one that comes back, unless somebody waits for one.

    Args:
        pool: Nobody else may take connections from it.
    """

    def __init__(self, pool: ConnectionPool[psycopg.Connection[Any]]) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._kept: psycopg.Connection[Any] | None = None
        self._keep_until = 0.0
        self._asking = 0
        self._closed = False

    def getconn(self, timeout: float | None = None) -> psycopg.Connection[Any]:
        """Lend a connection. Raises PoolTimeout."""
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                return kept
            self._asking += 1
        try:
            connection = self._pool.getconn(timeout)
        finally:
            with self._lock:
                self._asking -= 1
                self._keep_until = time.monotonic() + LONGEST
        return connection

    def putconn(self, connection: psycopg.Connection[Any]) -> None:
        """Take a connection back."""
        with self._lock:
            wanted = self._kept is None and not self._asking and not self._closed
            fresh = time.monotonic() < self._keep_until
            if wanted and fresh and connection.pgconn.transaction_status == _IDLE:
                self._kept = connection
                return
        self._pool.putconn(connection)

    def drain(self) -> None:
        """Let go of all connections; new ones are made."""
        self._return_kept()
        self._pool.drain()

    def close(self) -> None:
        """Close all connections; none is lent any more."""
        with self._lock:
            self._closed = True
        self._return_kept()
        self._pool.close()

    def _return_kept(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            self._pool.putconn(kept)
