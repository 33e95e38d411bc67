"""How long a producer's call may take. When its time is over its connection is cut, and the call fails.

Nothing else bounds the wait for an answer: a server that is stopped, a pooler that hangs and a commit that waits for
its standby go on acknowledging what they are sent, so neither keepalives nor `tcp_user_timeout` notice.
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

__all__ = ["Deadline", "Watchman", "cut", "watched"]

_NEVER: Final = float("inf")


def cut(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None) -> None:
    """Make a call that waits on this connection fail now, from any thread.

    Cancelling does not do it while the network swallows packets: it asks the server first, and waits for an answer.
    """
    if connection is None or connection.closed:
        return
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as sock:
        sock.shutdown(socket.SHUT_RDWR)


class Deadline:
    """The end of one call's time.

    Args:
        seconds: How long it may take from now on; infinity for a call that nothing bounds.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds
        """When it is over; later, if it is renewed meanwhile."""

    @property
    def left(self) -> float:
        """Seconds until then, 0 afterwards."""
        return max(self.at - time.monotonic(), 0.0)

    def renewed_by(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Hand on what a COPY sends; each piece that goes out renews the deadline.

        While a piece is made it stands still: how long the caller takes to produce its jobs is the caller's business.
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


class Watchman:
    """Cuts connections of threads' calls whose time is over: one thread, which ends when there is nothing to watch.

    It sleeps until the first deadline, or for as long as a new call has: it need not be told of new ones.

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
                self._thread = threading.Thread(target=self._run, name="dbjobq-watchman", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # at the interpreter's exit no thread starts any more: what ends a call is TCP
                    self._thread = None

    def dismiss(self, deadline: Deadline) -> None:
        """The call has ended, or was never watched."""
        with self._lock:  # so that nobody who has this connection next is cut instead
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
def watched(connection: psycopg.AsyncConnection[Any], deadline: Deadline) -> Generator[None]:
    """Watch a call of the running event loop on a connection while the block runs."""
    loop = asyncio.get_running_loop()

    def look() -> None:
        if not deadline.left:
            cut(connection)
        else:  # it was renewed
            timers[0] = loop.call_later(min(deadline.left, deadline.seconds), look)

    timers = [loop.call_later(deadline.left, look)]
    try:
        yield
    finally:
        timers[0].cancel()
