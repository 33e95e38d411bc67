"""A worker's heartbeat on PostgreSQL: a connection of its own, used by one thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from dbjobq.storage.base import Pulse
from dbjobq.storage.connections import Connections
from dbjobq.storage.deadline import cut
from dbjobq.storage.faults import translated
from dbjobq.storage.guard import Guard
from dbjobq.storage.statements import DURABLE, Statements
from dbjobq.storage.values import Claim, Outcome, Rescued
from dbjobq.storage.way import SyncConnection
from dbjobq.storage.wire import finish_params, held_params

__all__ = ["PostgresPulse"]


class PostgresPulse(Pulse):
    """See `Pulse`.

    Args:
        connections: Where its own comes from.
        statements: Ours.
        guard: Watches over its calls.
        name: The worker's.
        worker: Tells the number under which it is registered at this moment.
        cut_session: Ends the connections of its session; from any thread.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it shares with its session
        self,
        connections: Connections,
        statements: Statements,
        guard: Guard,
        name: str,
        worker: Callable[[], int | None],
        cut_session: Callable[[], None],
    ) -> None:
        self._connections, self._statements, self._guard = connections, statements, guard
        self._name, self._worker, self._cut_session = name, worker, cut_session
        self._connection: SyncConnection | None = None

    @contextmanager
    def _connected(self) -> Generator[SyncConnection]:
        with translated(self._connections.schema):
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            try:
                with self._guard.waiting(self._connection):
                    yield self._connection
            except BaseException:
                self.close()
                raise

    def _rows(self, name: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(self._statements[name], params).fetchall()

    def _connect(self) -> SyncConnection:
        """Go past a pooler, which may have no connection to lend while jobs hold transactions, if that leads here."""
        if self._connections.pooled:
            with suppress(psycopg.Error):
                direct = self._connection = self._connections.connect_directly()
                params = {"worker": self._worker(), "name": self._name}
                if direct.execute(self._statements["known"], params).fetchone() == (True,):
                    return direct
            self.close()
        return self._connections.connect()

    def beat(self, seconds: float) -> bool:
        """See `Pulse.beat`."""
        worker = self._worker()
        return worker is not None and bool(self._rows("heartbeat", {"worker": worker, "ttl": seconds}))

    def lost(self, held: Sequence[Claim]) -> list[Claim]:
        """See `Pulse.lost`."""
        still = {row[0] for row in self._rows("held", held_params(held))}
        return [claim for claim in held if claim.id not in still]

    def rescue(self) -> list[Rescued]:
        """See `Pulse.rescue`: looks first, so that a probe that finds nothing writes nothing."""
        ((needed,),) = self._rows("rescue_needed")
        return [Rescued(*row[:5]) for row in self._rows("rescue")] if needed else []

    def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """See `Pulse.finish`."""
        with self._connected() as connection, connection.transaction():
            connection.execute(DURABLE)
            claims = held_params(outcome.claim for outcome in outcomes)
            unlocked = {row[0] for row in connection.execute(self._statements["unlocked"], claims)}
            ours = [outcome for outcome in outcomes if outcome.claim.id in unlocked]
            if ours:
                connection.execute(self._statements["finish"], finish_params(ours))
            return unlocked

    def take_over(self, keep: Sequence[Claim]) -> list[str]:
        """See `Pulse.take_over`."""
        self._cut_session()
        with self._connected() as connection, connection.transaction():
            connection.execute(DURABLE)
            params = {"worker": self._worker(), **held_params(keep)}
            return [row[0] for row in connection.execute(self._statements["release_worker"], params)]

    def cut(self) -> None:
        """See `Pulse.cut`."""
        cut(self._connection)

    def close(self) -> None:
        """See `Pulse.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
