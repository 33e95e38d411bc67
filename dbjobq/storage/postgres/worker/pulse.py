"""A worker's calls to PostgreSQL beside its event loop: over a connection of its own, by one thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg

from dbjobq.events.bus import emit
from dbjobq.events.names import PLACES_TIDIED
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Cutter, Deadline, cut
from dbjobq.storage.postgres.connect.errors import is_passing, translated
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.connect.way import SyncConnection
from dbjobq.storage.postgres.rows import finish_params, held_params, ids_param
from dbjobq.storage.postgres.statements import DURABLE, Statements, set_session
from dbjobq.storage.postgres.worker.set_aside import in_another_form
from dbjobq.storage.values import Claim, Outcome, Rescued
from dbjobq.storage.worker_port import Pulse

__all__ = ["PostgresPulse"]

ANSWERED: Final = 0.38
"""The share of a worker's life within which a heartbeat is answered; if not, there is time for another, over a new
connection: one that was sent before this one lasts for half of a life more, at least."""
ANSWERED_BY_A_POOLER: Final = 0.7
"""The same where another would wait longer than this one: a pooler lets us wait for one of its connections."""


class PostgresPulse(Pulse):
    """See `Pulse`.

    Args:
        connections: Where its own comes from.
        statements: Ours.
        guard: Watches over its calls.
        name: The worker's.
        worker: Tells the number under which it is registered at this moment.
        cut_session: Ends the connections of its session; from any thread.
        ttl: The worker's life without a heartbeat, in seconds.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it shares with its session
        self,
        connections: Connections,
        statements: Statements,
        guard: Watchdog,
        name: str,
        worker: Callable[[], int | None],
        cut_session: Callable[[], None],
        ttl: float,
    ) -> None:
        self._connections, self._statements, self._guard = connections, statements, guard
        self._name, self._worker, self._cut_session = name, worker, cut_session
        self._patience = ttl * (ANSWERED_BY_A_POOLER if connections.pooled else ANSWERED)
        self._cutter = Cutter(self._patience)
        self._connection: SyncConnection | None = None
        self._bounded = False  # whether the server, too, gives up what is asked over this connection

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

    def _at_once(self, name: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return what is answered at once, or not at all: then the connection is cut, and the next one may do better.

        The server gives it up as well, so that nothing of it is left there, waiting for a lock.
        """
        deadline = Deadline(self._patience)
        with self._connected() as connection, self._cutter.over(connection, deadline):
            if not (self._bounded or self._connections.pooled):
                connection.execute(set_session(statement_timeout=f"{max(self._patience * 1000, 1):.0f}"))
                self._bounded = True
            return connection.execute(self._statements[name], params).fetchall()

    def _connect(self) -> SyncConnection:
        """Go past a pooler, which may have no connection to lend while jobs hold transactions, if that leads here."""
        if self._connections.pooled:
            with suppress(psycopg.Error):
                direct = self._connection = self._connections.connect_directly(Deadline(self._patience))
                params = {"worker": self._worker(), "name": self._name}
                if direct.execute(self._statements["known"], params).fetchone() == (True,):
                    return direct
            self.close()
        return self._connections.connect(Deadline(self._patience))

    def beat(self, seconds: float) -> bool:
        """See `Pulse.beat`."""
        worker = self._worker()
        own = {"worker": worker, "name": self._name}
        return worker is not None and bool(self._at_once("heartbeat", {**own, "ttl": seconds}))

    def lost(self, held: Sequence[Claim]) -> dict[Claim, bool]:
        """See `Pulse.lost`."""
        still = {row[0] for row in self._at_once("held", held_params(held))}
        if not (lost := [claim for claim in held if claim.id not in still]):
            return {}
        cancelled = {row[0] for row in self._at_once("cancelled", ids_param(lost))}
        return {claim: claim.id in cancelled for claim in lost}

    def abandoned(self) -> bool:
        """See `Pulse.abandoned`."""
        return bool(self._at_once("rescue_needed")[0][0])

    def rescue(self) -> list[Rescued]:
        """See `Pulse.rescue`. Jobs that somebody has put into several places are left in one of them first."""
        with self._connected() as connection:
            try:
                rows = connection.execute(self._statements["rescue"]).fetchall()
            except psycopg.errors.UniqueViolation:
                ((removed,),) = connection.execute(self._statements["tidy"]).fetchall()
                emit(PLACES_TIDIED, rows=removed)
                rows = connection.execute(self._statements["rescue"]).fetchall()
            return [Rescued(*row[:5]) for row in rows]

    def piece(self, statement: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """See `Pulse.piece`."""
        return self._rows(statement, params)

    def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """See `Pulse.finish`."""
        with self._connected() as connection, connection.transaction():
            connection.execute(DURABLE)
            claims = held_params(outcome.claim for outcome in outcomes)
            unlocked = {row[0] for row in connection.execute(self._statements["unlocked"], claims)}
            return self._finish(connection, [outcome for outcome in outcomes if outcome.claim.id in unlocked])

    def take_over(self, keep: Sequence[Claim], outcomes: Sequence[Outcome] = ()) -> tuple[set[str], list[str]]:
        """See `Pulse.take_over`. Waits for what is locked: the server hears of the cut, and ends what was half sent."""
        self._cut_session()
        with self._connected() as connection, connection.transaction():
            connection.execute(DURABLE)
            accepted = self._finish(connection, outcomes)
            params = {"worker": self._worker(), "name": self._name, **held_params(keep)}
            return accepted, [row[0] for row in connection.execute(self._statements["release_worker"], params)]

    def _finish(self, connection: SyncConnection, outcomes: Sequence[Outcome]) -> set[str]:
        """Write results; one that PostgreSQL refuses is written in another form, and keeps none of the others back."""
        if not outcomes:
            return set()
        try:
            with connection.transaction():
                params = finish_params(outcomes, self._connections.way.codec)
                return {row[0] for row in connection.execute(self._statements["finish"], params)}
        except psycopg.Error as error:
            if is_passing(error):
                raise
            if len(outcomes) > 1:
                return {id_ for outcome in outcomes for id_ in self._finish(connection, [outcome])}
            if (another := in_another_form(outcomes[0], error)) is None:
                raise
            return self._finish(connection, [another])

    def cut(self) -> None:
        """See `Pulse.cut`."""
        cut(self._connection)

    def close(self) -> None:
        """See `Pulse.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._bounded = False
