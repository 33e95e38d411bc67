"""A worker's session on PostgreSQL: what the port asks of one, each part of it made by a module of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import cut
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.connect.way import hang_up
from dbjobq.storage.postgres.listening import Listening
from dbjobq.storage.postgres.rows import held_params
from dbjobq.storage.postgres.statements import Statements
from dbjobq.storage.postgres.worker.claim_start import ClaimStart
from dbjobq.storage.postgres.worker.exchange import Exchanging
from dbjobq.storage.postgres.worker.link import Link, Opener
from dbjobq.storage.postgres.worker.pulse import PostgresPulse
from dbjobq.storage.postgres.worker.served import ServedQueues
from dbjobq.storage.postgres.worker.wake_up import Gate, notices
from dbjobq.storage.values import Answer, Claim, Exchange, Idle, Notice
from dbjobq.storage.worker_port import Session

__all__ = ["PostgresSession"]


class PostgresSession(Session):
    """See `Session`. One connection for work, opened anew after each failure; one more while `notices` is iterated.

    Args:
        connections: Where they come from.
        statements: Ours.
        worker_id: The worker's name.
        queues: The queues that the worker serves, in this order; None for all.
        ttl: The worker's life without a heartbeat, in seconds.
    """

    def __init__(
        self,
        connections: Connections,
        statements: Statements,
        worker_id: str,
        queues: Sequence[str] | None,
        ttl: float,
    ) -> None:
        self.worker_id = worker_id
        self._connections = connections
        self._guard = Watchdog(connections, statements, ttl)
        self._opener = Opener(connections, statements, self._guard, worker_id, ttl)
        self._queues = ServedQueues(queues)
        self._gate = Gate(self._queues)
        self._exchanging = Exchanging(self._queues, self._gate)
        self._listening = Listening(connections, statements, self._guard)
        self._link: Link | None = None
        self._worker: int | None = None
        shared = (connections, statements, self._guard, worker_id)
        self._new_pulse = partial(PostgresPulse, *shared, lambda: self._worker, self._cut, ttl)

    async def open(self) -> bool:
        """See `Session.open`."""
        with translated(self._connections.schema):
            link = await self._opener.open(self._queues, self._worker)
        same = self._worker in {None, link.worker}
        self._link, self._worker = link, link.worker
        self._queues.start = ClaimStart()
        self._gate.doubt()
        return same

    def forget(self) -> None:
        """See `Session.forget`."""
        self._worker = None

    async def close(self) -> None:
        """See `Session.close`."""
        link, self._link = self._link, None
        if link is not None:
            await hang_up(link.connection)

    @contextmanager
    def _asking(self) -> Generator[Link]:
        link = self._link
        if link is None or self._worker is None or link.connection.closed:
            raise StorageUnavailable("this worker's connection is closed")
        with translated(self._connections.schema, workers=True), self._guard.waiting(link.connection):
            yield link

    async def step(self, exchange: Exchange) -> Answer:
        """See `Session.step`."""
        with self._opener.limit.kept(), self._asking() as link:
            return await self._exchanging.make(link, exchange)

    async def idle(self) -> Idle:
        """See `Session.idle`."""
        with self._asking() as link:
            self._exchanging.due_is_told()
            idle = await self._gate.fall_asleep(link)
        return idle._replace(look_in=0.0) if self._exchanging.claiming.take_places_left() else idle

    async def release(self, keep: Iterable[Claim] = ()) -> list[str]:
        """See `Session.release`."""
        with self._asking() as link:
            async with link.transaction():
                rows = await link.rows("release_worker", {**link.who, **held_params(keep)})
            return [row[0] for row in rows]

    def notices(self) -> AsyncGenerator[Notice]:
        """See `Session.notices`."""
        return notices(self._listening, self._queues, self._gate)

    def pulse(self) -> PostgresPulse:
        """See `Session.pulse`."""
        return self._new_pulse()

    def _cut(self) -> None:
        """End the connections that the event loop uses; from any thread."""
        if (link := self._link) is not None:
            cut(link.connection)
        self._listening.cut()

    def guard(self) -> Watchdog:
        """See `Session.guard`."""
        return self._guard
