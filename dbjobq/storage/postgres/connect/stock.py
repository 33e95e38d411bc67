"""The account that a pool keeps of its connections and of the callers that wait for one. Nothing in here waits."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolClosed, PoolTimeout

__all__ = ["Reaching", "Stock", "Turn"]

C = TypeVar("C", bound="psycopg.Connection[Any] | psycopg.AsyncConnection[Any]")

LIFETIME: Final = 3600.0
"""Seconds after which a connection is not lent again: a server's process grows with what it has seen."""
UNUSED: Final = 600.0
"""Seconds after which a connection that nobody needed meanwhile is closed."""
FIRST_RECONNECT_WAIT: Final = 0.05
"""Seconds before the second try to reach a server that is away."""
LONGEST_RECONNECT_WAIT: Final = 0.5
"""Seconds to which the waits between tries grow."""
_IDLE: Final = TransactionStatus.IDLE


class Reaching:
    """The time that a caller has to get a connection, and the waits between its tries to reach the server.

    Args:
        seconds: How much time.
        patient: Tells whether to wait for a server that cannot be reached.
    """

    __slots__ = ("_patient", "_until", "_wait", "seconds")

    def __init__(self, seconds: float, patient: Callable[[], bool]) -> None:
        self.seconds, self._until = seconds, time.monotonic() + seconds
        self._patient, self._wait = patient, FIRST_RECONNECT_WAIT

    @property
    def left(self) -> float:
        """Seconds that are left, 0 afterwards."""
        return max(self._until - time.monotonic(), 0.0)

    def after(self, error: psycopg.OperationalError) -> float:
        """Return how long to wait before the next try. Raises the error, or what it means, if there is no other."""
        if not self._patient():
            raise error
        if not self.left:
            raise PoolTimeout(str(error)) from error
        wait, self._wait = self._wait, min(2 * self._wait, LONGEST_RECONNECT_WAIT)
        return min(wait, self.left)


class Turn(Generic[C]):
    """A caller's turn to have a connection. When it has come, the caller gets a connection, or may make one."""

    __slots__ = ("come", "given", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.come = False
        self.given: C | None = None


class Stock(Generic[C]):
    """The bookkeeping of both pools. Nothing in here waits; the pool for threads calls it under a lock.

    Args:
        most: How many connections there may be.
        timeout: Seconds to wait for a connection.
        patient: Tells whether to wait for a server that cannot be reached.
    """

    def __init__(self, most: int, timeout: float, patient: Callable[[], bool]) -> None:
        self._most, self._timeout, self._patient = most, timeout, patient
        self._idle: deque[tuple[C, float]] = deque()
        """The connections that nobody uses, and since when. If there are any, no caller waits."""
        self._made: dict[C, float] = {}
        """All connections, and when each was made."""
        self._making = 0
        self._waiting: deque[Turn[C]] = deque()
        self._drained_at = float("-inf")
        self._closed = False
        self._end = weakref.finalize(self, _finish_all, os.getpid(), self._idle)

    @property
    def closed(self) -> bool:
        """Whether the pool lends nothing any more."""
        return self._closed

    def _ask(self, wake: Callable[[], object]) -> Turn[C]:
        if self._closed:
            raise PoolClosed("the pool is closed")
        turn: Turn[C] = Turn(wake)
        self._waiting.append(turn)
        self._serve()
        return turn

    def _serve(self) -> None:
        """Let as many waiting callers make a connection as there is room for."""
        while self._waiting and len(self._made) + self._making < self._most:
            self._making += 1
            self._come(None)

    def _come(self, given: C | None) -> None:
        turn = self._waiting.popleft()
        turn.come, turn.given = True, given
        turn.wake()

    def _give_up(self, turn: Turn[C]) -> None:
        """Drop a turn: it does not come any more, or the connection that came with it goes to others."""
        if not turn.come:
            if turn in self._waiting:
                self._waiting.remove(turn)
        elif turn.given is not None:
            self._take_back(turn.given)
        else:
            self._making -= 1
            self._serve()

    def _keep(self, connection: C) -> C:
        """Count a connection that was just made."""
        self._making -= 1
        self._made[connection] = time.monotonic()
        return connection

    def _take_back(self, connection: C) -> None:
        now = time.monotonic()
        made = self._made[connection]
        well = connection.pgconn.transaction_status == _IDLE
        kept = well and made > self._drained_at and now - made <= LIFETIME
        if not kept or self._closed or not self._end.alive:  # the program ends, and runs its last handlers
            self._drop(connection)
        elif self._waiting:
            self._come(connection)
        else:
            self._idle.append((connection, now))
            if now - self._idle[0][1] > UNUSED:
                self._drop(self._idle.popleft()[0])

    def _drop(self, connection: C) -> None:
        connection.pgconn.finish()
        del self._made[connection]
        if not self._closed:
            self._serve()

    def _let_go(self) -> None:
        """Close the idle connections; lent ones are closed when they come back."""
        self._drained_at = time.monotonic()
        while self._idle:
            self._drop(self._idle.pop()[0])

    def _close(self) -> None:
        self._closed = True
        self._let_go()
        while self._waiting:
            self._waiting.popleft().wake()

    def _check(self, turn: Turn[C], seconds: float) -> None:
        """Raise PoolTimeout or PoolClosed for a caller whose turn has not come."""
        if not turn.come:
            raise (
                PoolClosed("the pool is closed") if self._closed else PoolTimeout(f"all are in use for {seconds:.2f} s")
            )

    def _within(self, seconds: float | None) -> Reaching:
        return Reaching(self._timeout if seconds is None else seconds, self._patient)


def _finish_all(pid: int, idle: deque[tuple[Any, float]]) -> None:
    """Close the connections of a pool that nobody closed, when it is collected or the program ends."""
    while idle and os.getpid() == pid:  # a forked child has a copy of its parent's pool, but must not touch it
        idle.pop()[0].pgconn.finish()
