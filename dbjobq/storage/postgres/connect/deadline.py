"""Deadlines of calls: when a call's time is over its connection is cut, and the call fails.

Nothing else bounds the wait for an answer. A stopped server, a pooler that hangs and a commit that waits for its
standby go on acknowledging packets, so neither keepalives nor `tcp_user_timeout` notice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg

__all__ = ["Cutter", "Deadline", "cut", "cut_at"]

_NEVER: Final = float("inf")


def cut(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None) -> None:
    """Make a call that waits on this connection fail now, from any thread.

    Cancelling would not do while the network swallows packets: it asks the server first, and waits for an answer.
    """
    if connection is None or connection.closed:
        return
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as sock:
        sock.shutdown(socket.SHUT_RDWR)


class Deadline:
    """The end of one call's time.

    Args:
        seconds: How long the call may take from now on; infinity for a call without a bound.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds
        """The moment at which the time is over; it moves when the deadline is renewed."""

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(self.at - time.monotonic(), 0.0)

    def renewed_by(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a COPY; each piece that goes out renews the deadline.

        The deadline stands still while a piece is made: a caller may take as long as it likes to produce its jobs.
        """
        making = iter(pieces)
        while True:
            self.at = _NEVER
            try:
                piece = next(making, None)
            finally:
                self.at = time.monotonic() + self.seconds
            if piece is None:
                return
            yield piece


class Cutter:
    """Cuts the connections of threads' calls whose time is over, by one thread, which ends when no call is left.

    The thread sleeps until the first deadline, but no longer than a new call has: so no new call need wake it.

    Args:
        seconds: How long a call has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._calls: dict[Deadline, psycopg.Connection[Any]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, connection: psycopg.Connection[Any], deadline: Deadline) -> None:
        """Watch a call on a connection, until `dismiss`."""
        with self._lock:
            self._calls[deadline] = connection
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dbjobq-cutter", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # at the interpreter's exit no thread starts any more; TCP's timeouts remain
                    self._thread = None

    def dismiss(self, deadline: Deadline) -> None:
        """Stop watching a call, if it was watched."""
        with self._lock:  # so that the connection's next call is not cut instead
            self._calls.pop(deadline, None)

    @contextmanager
    def over(self, connection: psycopg.Connection[Any], deadline: Deadline) -> Generator[None]:
        """Watch a call on a connection while the block runs."""
        self.watch(connection, deadline)
        try:
            yield
        finally:
            self.dismiss(deadline)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
                for deadline, connection in self._calls.items():
                    if not deadline.left:
                        cut(connection)
                first = min(deadline.left or self._seconds for deadline in self._calls)
            time.sleep(min(first, self._seconds))


@contextmanager
def cut_at(connection: psycopg.AsyncConnection[Any], deadline: Deadline) -> Generator[None]:
    """Watch a call of the running event loop on a connection while the block runs."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not deadline.left:
            cut(connection)
        else:  # the deadline was renewed
            timers[0] = loop.call_later(min(deadline.left, deadline.seconds), look)

    timers = [loop.call_later(deadline.left, look)]
    try:
        yield
    finally:
        timers[0].cancel()
