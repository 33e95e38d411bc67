"""A worker's exchange with PostgreSQL: results, claims, progress and the like, in one pipeline.

One pipeline is one transaction, one flush to disk and one wait for an answer. Where PostgreSQL refuses a part of it,
nothing of it has happened: then the results are written one by one, and nothing is claimed.
"""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

import psycopg

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import PLACES_TIDIED
from dbjobq.storage.postgres.connect.errors import first_line, forget_prepared, is_passing
from dbjobq.storage.postgres.rows import held_params
from dbjobq.storage.postgres.worker.claims import Claiming, Wish
from dbjobq.storage.postgres.worker.link import Link
from dbjobq.storage.postgres.worker.results import Results, cancelled, write_one_by_one
from dbjobq.storage.postgres.worker.served import ServedQueues
from dbjobq.storage.postgres.worker.wake_up import Gate
from dbjobq.storage.values import Answer, Exchange

__all__ = ["Exchanging"]

DUE_EVERY: Final = 0.5
"""Seconds after which an exchange asks again for the next scheduled job, while claims go on."""
PROMOTE_WITHIN: Final = 0.25
"""Seconds that an exchange takes at most to make due jobs ready, some 25,000 of them; results wait meanwhile."""
PROMOTE_AT_MOST: Final = 5.0
"""Seconds for which claims wait, exchange after exchange, until all due jobs are ready."""
BUSY_EVERY: Final = 1.0
"""Seconds between two times that a busy worker tells enqueues not to notify."""


class _Sent(NamedTuple):
    """The parts of one pipeline whose answers are to be read."""

    results: Results
    wish: Wish | None
    due: psycopg.AsyncCursor[Any] | None
    """The cursor with the next scheduled job, if that was asked for."""
    busy: bool
    """Whether the pipeline told enqueues not to notify."""


class Exchanging:
    """Makes the exchanges of one worker, one after the other.

    Args:
        queues: Those that the worker serves.
        gate: Is told when enqueues need not notify.
    """

    def __init__(self, queues: ServedQueues, gate: Gate) -> None:
        self._queues, self._gate = queues, gate
        self.claiming = Claiming(queues)
        self._promotion = _Promotion()
        self._due_asked_at = self._busy_said_at = float("-inf")

    def due_is_told(self) -> None:
        """Ask for the next scheduled job only after the next claim: a worker that falls asleep is told of it anyway."""
        self._due_asked_at = float("inf")

    async def make(self, link: Link, exchange: Exchange) -> Answer:
        """Make one exchange. Raises psycopg's errors, unless every result could be written by itself."""
        now, results = time.monotonic(), Results(exchange.outcomes, link.connection)
        await self._queues.refresh(link.rows)
        if results.hand_back:
            self._queues.start.jobs_handed_back()
        want = self.claiming.at_most(exchange.want)
        if want and exchange.promote and not await self._promotion.make(link, self._since(now), now):
            want = 0
        try:
            sent = await self._send(link, exchange, results, want, now)
        except psycopg.errors.UniqueViolation as error:
            await forget_prepared(link.connection)
            await _tidy(link, error)
        except psycopg.Error as error:
            if is_passing(error) or not results:
                raise
            await forget_prepared(link.connection)
        else:
            return await self._read(link, exchange, sent, now)
        refused = await write_one_by_one(link, exchange.outcomes)
        return Answer([], refused, None, await cancelled(link, refused))

    async def _send(self, link: Link, exchange: Exchange, results: Results, want: int, now: float) -> _Sent:
        send, sql = link.connection.execute, link.statements
        wish = Wish(link, want, exchange.beat, exchange.space, now) if want else None
        busy, due = wish is not None and exchange.rush and now - self._busy_said_at > BUSY_EVERY, None
        async with link.pipeline(durable=bool(results)):
            await results.send(link)
            if exchange.progress:
                said = {"progress": list(exchange.progress.values())}
                await send(sql["progress"], {**held_params(exchange.progress), **said})
            if wish:
                await self.claiming.send(wish, promoting=exchange.promote)
            if busy:
                await send(sql["busy"], self._queues.params)
            if wish and (exchange.promote or self._asks_due(now, near=wish.near)):
                due = await link.connection.cursor(binary=True).execute(sql["next_due"], {"since": self._since(now)})
        return _Sent(results, wish, due, busy)

    async def _read(self, link: Link, exchange: Exchange, sent: _Sent, now: float) -> Answer:
        refused, gave_up = await sent.results.read(link)
        ended = await cancelled(link, refused)
        near = sent.wish is not None and sent.wish.near
        claims = await self.claiming.read(sent.wish) if sent.wish else []
        if sent.wish:
            self._due_asked_at = min(self._due_asked_at, now)
        if sent.busy:
            self._busy_said_at = now
            self._gate.busy_was_said()
        if sent.due is None:  # nothing was claimed because more is due than could be made ready: go on with that
            return Answer(claims, refused, 0.0 if exchange.promote and not sent.wish else None, ended, gave_up)
        self._due_asked_at = now
        ((next_due, server_time, seconds),) = await sent.due.fetchall()
        self._queues.start.scheduled_seen(server_time, next_due)
        if not near:
            self._queues.start.measured(time.monotonic(), seconds, len(claims) + len(sent.results))
        return Answer(claims, refused, next_due, ended, gave_up)

    def _asks_due(self, now: float, *, near: bool) -> bool:
        """Return whether to ask for the next scheduled job; the answer has the time that a full claim took, too."""
        return now - self._due_asked_at > DUE_EVERY or (not near and self._queues.start.wants_measure())

    def _since(self, now: float) -> float | None:
        return self._queues.start.none_due_before(now)


class _Promotion:
    """Makes due jobs ready. Claims wait until all due jobs can be compared by priority, but not for ever."""

    def __init__(self) -> None:
        self._behind_since = float("inf")  # when more jobs were due, for the first time, than one exchange makes ready

    async def make(self, link: Link, since: float | None, now: float) -> bool:
        """Make due jobs ready; return whether to claim now, or to go on with the due jobs in the next exchange first.

        Jobs may fall due as fast as they move, so that they are never all ready.
        """
        more = True
        while more and time.monotonic() - now < PROMOTE_WITHIN:
            async with link.pipeline(durable=False):
                promoted = await link.connection.execute(link.statements["promote"], {"since": since})
            ((more, _),) = await promoted.fetchall()
        self._behind_since = min(self._behind_since, now) if more else float("inf")
        return now - self._behind_since > PROMOTE_AT_MOST or not more


async def _tidy(link: Link, error: psycopg.Error) -> None:
    """Leave jobs that somebody has put into several places in one of them."""
    ((removed,),) = await link.rows("tidy")
    if not removed:  # by now others have done it, or there is something else in the way
        raise StorageUnavailable(f"a job stands in two places: {first_line(error)}") from error
    emit(PLACES_TIDIED, rows=removed)
