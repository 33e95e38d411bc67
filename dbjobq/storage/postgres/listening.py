"""Listens for notifications over a direct connection of its own, for workers and for everybody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal, NamedTuple

from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import cut
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.connect.way import AsyncConnection, hang_up
from dbjobq.storage.postgres.statements import Statements

__all__ = ["Heard", "Listening"]

ECHO_WITHIN: Final = 1.0
"""Seconds in which the listener's own notification must come back; it takes milliseconds."""
SILENCE: Final = 60.0
"""Seconds without a notification after which the connection is tested."""

Kind = Literal["listening", "work", "busy", "cancelled", "echo", "deaf"]
_KINDS: Final[dict[str, Kind]] = {"w": "work", "b": "busy", "c": "cancelled", "e": "echo"}
"""The kinds of notifications by their payload's first letter, as the statements in `sql/` send it."""


class Heard(NamedTuple):
    """A notification, or a finding about the connection."""

    kind: Kind
    """The kind.

    `listening` comes first: from now on notifications are heard. `work`: a job is ready in a queue. `busy`: enqueues
    into a queue need not notify. `cancelled`: a running job was cancelled. `echo` or `deaf`, within a second: whether
    notifications arrive here at all.
    """
    about: str = ""
    """The number of the queue, or the id of the job."""


class Listening:
    """Listens, over one connection at a time.

    Args:
        connections: Makes the connection.
        statements: The statements for the schema.
        guard: The watchdog for questions over the connection; None without one.
    """

    def __init__(self, connections: Connections, statements: Statements, guard: Watchdog | None = None) -> None:
        self._connections, self._statements = connections, statements
        self._guard = guard or Watchdog(connections, statements)
        self._connection: AsyncConnection | None = None

    async def heard(self) -> AsyncGenerator[Heard]:
        """Yield notifications until the connection is lost, which raises StorageUnavailable."""
        with translated(self._connections.schema):
            connection = self._connection = await self._connections.connect_listener()
            try:
                with self._guard.waiting(connection):
                    await connection.execute(self._statements.listen.encode())
                yield Heard("listening")
                async with aclosing(self._payloads(connection)) as payloads:
                    async for payload in payloads:
                        if payload is None:
                            yield Heard("deaf")
                        elif (kind := _KINDS.get(payload[:1])) is not None:
                            yield Heard(kind, payload[1:])
            finally:
                await hang_up(connection)

    async def _payloads(self, connection: AsyncConnection) -> AsyncGenerator[str | None]:
        """Yield payloads; None if the listener's own notification does not come back within a second.

        That notification goes over the connection that enqueues use. Over the listening connection it would prove
        nothing: a pooler passes on the notifications that a server adds to its answers.
        """
        async with await self._connections.async_connect() as other:
            with self._guard.waiting(other):
                await other.execute(self._statements["echo"])
        heard = False
        async for notify in connection.notifies(timeout=ECHO_WITHIN):
            heard = True
            yield notify.payload
        if not heard:
            yield None
        while True:
            async for notify in connection.notifies(timeout=SILENCE):
                yield notify.payload
            with self._guard.waiting(connection):
                await connection.execute(b"select 1")

    def cut(self) -> None:
        """End the connection; from any thread."""
        cut(self._connection)
