"""A worker's claims: sent as part of an exchange, read, and completed where they brought too little.

A near claim may have missed jobs: a full one follows. Some of the places that a claim found may have no body: they are
cleared away. Large arguments are fetched by a statement of their own, as far as there is room for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import psycopg

from dbjobq.events.bus import emit
from dbjobq.events.names import PLACES_CLEARED
from dbjobq.storage.postgres.rows import (
    ClaimRow,
    RawRow,
    array,
    bodies_params,
    claims_of,
    clear_params,
    finish_params,
    lacks_data,
    last_positions,
    queues_of,
    with_data,
)
from dbjobq.storage.postgres.worker.link import Link
from dbjobq.storage.postgres.worker.served import ServedQueues
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Claiming", "Wish"]

ANY: Final = 2**31 - 1
"""The most jobs that a claim can be asked for."""
ROOM: Final = 2**24
"""Bytes of large data that a claim brings at most, beyond one job: 16 MiB."""
CLEARINGS: Final = 10
"""How often an exchange clears away a thousand places whose job is gone."""


@dataclass(slots=True)
class Wish:
    """The wishes for one claim."""

    link: Link
    want: int
    """How many jobs to claim, at most."""
    beat: float | None
    """See `Exchange.beat`."""
    space: Callable[[], int] | None
    """See `Exchange.space`."""
    now: float
    """The moment at which the exchange began."""
    near: bool = False
    """Whether the claim was a near one."""
    cursor: psycopg.AsyncCursor[RawRow] = field(init=False)

    def __post_init__(self) -> None:
        self.cursor = self.link.connection.cursor(binary=True)


class Claiming:
    """Makes the claims of one worker.

    Args:
        queues: Those that the worker serves.
    """

    def __init__(self, queues: ServedQueues) -> None:
        self._queues = queues
        self._most = ANY  # jobs to claim at once: fewer where their data are large
        self._places_left = False
        self._told_of_places = False

    def at_most(self, want: int) -> int:
        """Return how many jobs to claim if `want` are wanted: fewer if their arguments are large."""
        return min(want, self._most)

    def take_places_left(self) -> bool:
        """Return whether places without a body may be left to clear away; the next call returns False."""
        left, self._places_left = self._places_left, False
        return left

    async def send(self, wish: Wish, *, promoting: bool) -> None:
        """Send a claim as part of a pipeline: a near claim, if that is enough."""
        starts = self._queues.start.near_starts(wish.now, self._queues.numbers, promoting=promoting)
        wish.near = starts is not None
        if starts is None:
            await self._send_full(wish, wish.want)
            return
        queues, priorities, positions = (array(map(str, column)) for column in zip(*starts, strict=True))
        behind = {"after": queues, "priorities": priorities, "positions": positions}
        await self._send(wish, "claim_after", wish.want, behind)

    async def _send_full(self, wish: Wish, want: int) -> None:
        await self._send(wish, "claim_any" if self._queues.many else "claim", want, {})

    async def _send(self, wish: Wish, name: str, want: int, behind: dict[str, str]) -> None:
        how = {"turn": self._queues.turn, "limit": want, "lease": None, "beat": wish.beat}
        params = {**self._queues.params, **wish.link.who, **how, **behind}
        await wish.cursor.execute(wish.link.statements[name], params)

    async def read(self, wish: Wish) -> list[Claim]:
        """Return the jobs that a claim found, and more by a full claim where a near one was not enough."""
        rows: list[RawRow] = await wish.cursor.fetchall()
        if self._found(wish, rows, rows):
            wish.near = False
            await self._send_full(wish, wish.want - len(rows))
            more: list[RawRow] = await wish.cursor.fetchall()
            rows += more
            self._found(wish, more, rows)
        await self._queues.met(wish.link.rows, rows, full_batch=len(rows) == wish.want)
        if lacks_data(rows):
            with_bodies = await self._clear(wish, [ClaimRow._make(row) for row in rows])
            rows = list(await self._fetch(wish, with_bodies))
        elif len(rows) >= self._most:
            self._most = min(self._most * 2, ANY)
        if len(rows) == wish.want:
            self._queues.next_turn()
        return claims_of(rows, self._queues.names)

    def _found(self, wish: Wish, rows: list[RawRow], in_all: list[RawRow]) -> bool:
        """Record the rows of a claim, and those found in all; return whether a full claim is to follow at once."""
        start, full_batch = self._queues.start, len(in_all) == wish.want
        again = start.claimed(wish.now, last_positions(rows), near=wish.near, full_batch=full_batch)
        if in_all and not again:
            start.nothing_left(wish.now, ClaimRow._make(in_all[-1]).claimed_at)
        return again

    async def _clear(self, wish: Wish, rows: list[ClaimRow]) -> list[ClaimRow]:
        """Return the rows that have a body; clear away places without one, and claim others in their stead."""
        link = wish.link
        for left in reversed(range(CLEARINGS)):
            empty = [row for row in rows if row.type is None]
            if not empty:
                break
            rows = [row for row in rows if row.type is not None]
            ((more,),) = await link.rows("clear", clear_params(queues_of(empty), empty))
            emit(PLACES_CLEARED, quietly=self._told_of_places, rows=len(empty) + more)
            self._told_of_places = True
            self._places_left = not left
            if left:
                await self._send_full(wish, wish.want - len(rows))
                found = [ClaimRow._make(row) for row in await wish.cursor.fetchall()]
                await self._queues.met(link.rows, found, full_batch=False)
                rows += found
        return rows

    async def _fetch(self, wish: Wish, rows: list[ClaimRow]) -> list[ClaimRow]:
        """Return the rows with their data, as far as there is room; hand the others back before any job starts."""
        large = [row for row in rows if row.data is None]
        if not large:
            return rows
        link = wish.link
        # A worker has died with a suspect: such jobs are claimed one at a time.
        space = ROOM if wish.space is None else wish.space()
        room = 1 if any(row.suspect for row in large) else max(1, min(ROOM, space))
        async with link.pipeline(durable=False):
            bodies = await link.connection.execute(link.statements["bodies"], bodies_params(large, room))
        rows = with_data(rows, await bodies.fetchall())
        fits = next((number for number, row in enumerate(rows) if row.data is None), len(rows))
        if fits < len(rows):  # all jobs behind it are handed back, too, so that the order remains
            back = claims_of((row._replace(data="") for row in rows[fits:]), self._queues.names)
            released = [Outcome(claim, "release") for claim in back]
            async with link.pipeline(durable=False):
                await link.connection.execute(link.statements["finish"], finish_params(released, None))
            self._queues.start.jobs_handed_back()
            self._most = max(1, fits)
        return rows[:fits]
