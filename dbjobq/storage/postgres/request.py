"""Makes the calls that `PostgresStorage` describes: one logic, sync and async (after psycopg's own generators).

Pools, callers' own connections, errors and repeats exist here once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import psycopg

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.callers import AsyncCaller, Caller, async_caller, sync_caller
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Deadline
from dbjobq.storage.postgres.connect.errors import POOL_IS_FULL, cause_of, is_away, is_conflict, is_lost, translated
from dbjobq.storage.postgres.connect.group_commit import Lane
from dbjobq.storage.postgres.steps import Call, CopyIn, Send, adrive, aperform, drive, perform

__all__ = ["Beforehand", "Outdated", "PostgresRequest"]

R = TypeVar("R")

TRIES: Final = 3
"""How often a call is tried whose connection is lost: the pool's next connection may be about to end, too."""
SHORTEST_AWAY_PAUSE: Final = 0.05
"""Seconds before the second try while something answers that the server is away."""
LONGEST_AWAY_PAUSE: Final = 1.0
"""Seconds to which the pauses between such tries grow. They go on for as long as the call has time."""
LAST_TRY: Final = 0.5
"""Seconds that the last of those tries has, at most a quarter of the call's time."""
CHANGES: Final = 5
"""How often a call learns what it needs to know: more than once only if the database was put back meanwhile."""
_CHANGES_TOO_FAST: Final = "the numbers of queues change faster than they can be learned; nothing was stored, try again"


class Outdated(Exception):  # noqa: N818 - never seen by a caller
    """Something that this process remembers of the database is wrong. Nothing has happened: learn it, and repeat."""


class Beforehand(Protocol):
    """Something that must be known, or made and committed, before a call.

    Args:
        deadline: The call's deadline.
        perform: Performs a step on the caller's connection, if the call is made on one: that may make another
            connection unnecessary.
        anew: Whether what is remembered has turned out to be wrong.
    """

    def run_by(self, deadline: Deadline | None, perform: Callable[[Send], Any] | None, *, anew: bool) -> None:
        """Learn it, or make it."""
        ...

    async def arun_by(
        self, deadline: Deadline | None, perform: Callable[[Send], Awaitable[Any]] | None, *, anew: bool
    ) -> None:
        """See `run_by`."""
        ...


class PostgresRequest(Generic[R]):
    """A call to PostgreSQL, not yet made (see `storage.base.Request`).

    Args:
        connections: Lends the connection.
        make: Starts the call. Its argument says whether the call was started before, on a connection that was then
            lost: then it may have happened.
        connection: The caller's own connection, in whose transaction the call is made.
        first: Something to be known before the call. Learned again if the call raises `Outdated`.
        atomic: Whether the steps of the call happen together or not at all.
        repeat: Tells whether the call may be repeated after a lost connection, or a conflict with others.
        bounded: Whether the call must end within the storage's timeout, repeats and connecting included. A COPY has as
            much for each piece.
        pinned: Whether the plans are pinned, as a worker's are (`Connections`); None if that does not matter.
        unsure: Advice for a caller who cannot know whether the call has happened; empty for a call that only reads.
        alone: Use a new connection, not the pool's: the caller may already hold the pool's last one, and would wait
            for itself.
        shared: Whether it may go out with others on an event loop (group_commit.py): no step waits for a lock; bounded.
    """

    __slots__ = (
        "_alone",
        "_atomic",
        "_bounded",
        "_connection",
        "_connections",
        "_first",
        "_make",
        "_pinned",
        "_repeat",
        "_shared",
        "_unsure",
    )

    def __init__(  # noqa: PLR0913 - how a call is made
        self,
        connections: Connections,
        make: Callable[[bool], Call[R]],
        *,
        connection: object | None = None,
        first: Beforehand | None = None,
        atomic: bool = False,
        repeat: Callable[[], bool] = lambda: True,
        bounded: bool = True,
        alone: bool = False,
        shared: bool = False,
        unsure: str = "",
        pinned: bool | None = None,
    ) -> None:
        self._connections, self._make, self._connection, self._first = connections, make, connection, first
        self._atomic, self._repeat, self._bounded = atomic, repeat, bounded
        self._alone, self._shared, self._unsure = alone, shared, unsure
        self._pinned = pinned

    def run(self) -> R:
        """Make the call. Raises ConfigError, SchemaError or StorageUnavailable for errors of the database.

        In a caller's transaction a conflict with others, which ends that transaction, is raised as it comes.
        """
        return self.run_by(self._deadline())

    def run_by(self, deadline: Deadline | None) -> R:
        """Make the call by the deadline."""
        with translated(self._connections.schema, callers=self._connection is not None):
            caller = None if self._connection is None else sync_caller(self._connection, atomic=self._atomic)
            anew, changes = False, CHANGES
            while True:
                if self._first is not None:
                    self._first.run_by(deadline, None if caller is None else caller.perform, anew=anew)
                try:
                    return self._repeated(deadline, caller)
                except Outdated:
                    anew, changes = True, changes - 1
                    if not changes:
                        raise StorageUnavailable(_CHANGES_TOO_FAST) from None

    def _repeated(self, deadline: Deadline | None, caller: Caller | None) -> R:
        if caller is not None:
            with caller.block():
                return drive(self._make(False), caller.perform)
        tries = _Tries(deadline, self._repeat, self._unsure)
        while True:
            since = time.monotonic()
            try:
                return self._once(deadline, again=tries.again)
            except psycopg.Error as error:
                if is_lost(error):
                    self._connections.heal(since)
                pause = tries.after(error)
            time.sleep(pause)

    def _deadline(self) -> Deadline | None:
        return Deadline(self._connections.timeout) if self._bounded else None

    def _once(self, deadline: Deadline | None, *, again: bool) -> R:
        with (
            self._connections.connection(deadline, alone=self._alone, pinned=self._pinned) as connection,
            self._transaction(connection),
        ):
            return drive(self._make(again), partial(perform, connection, deadline=deadline))

    def _transaction(self, connection: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()

    async def arun(self) -> R:
        """Make the call on the running event loop; raises as `run` does."""
        return await self.arun_by(self._deadline())

    async def arun_by(self, deadline: Deadline | None) -> R:
        """Make the call by the deadline."""
        with translated(self._connections.schema, callers=self._connection is not None):
            caller = None if self._connection is None else await async_caller(self._connection, atomic=self._atomic)
            anew, changes = False, CHANGES
            while True:
                if self._first is not None:
                    await self._first.arun_by(deadline, None if caller is None else caller.perform, anew=anew)
                try:
                    return await self._arepeated(deadline, caller)
                except Outdated:
                    anew, changes = True, changes - 1
                    if not changes:
                        raise StorageUnavailable(_CHANGES_TOO_FAST) from None

    async def _arepeated(self, deadline: Deadline | None, caller: AsyncCaller | None) -> R:
        if caller is not None:
            async with caller.block():
                return await adrive(self._make(False), caller.perform)
        tries = _Tries(deadline, self._repeat, self._unsure)
        while True:
            since = time.monotonic()
            try:
                return await self._aonce(deadline, again=tries.again)
            except psycopg.Error as error:
                if is_lost(error):
                    await self._connections.aheal(since)
                pause = tries.after(error)
            await asyncio.sleep(pause)

    async def _aonce(self, deadline: Deadline | None, *, again: bool) -> R:
        if self._shared and deadline is not None and not again:
            lane = await self._connections.lane()
            if lane is not None:
                return await adrive(self._make(again), partial(_in_lane, lane, deadline))
        async with (
            self._connections.aconnection(deadline, alone=self._alone, pinned=self._pinned) as connection,
            self._atransaction(connection),
        ):
            return await adrive(self._make(again), partial(aperform, connection, deadline=deadline))

    def _atransaction(self, connection: psycopg.AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()


class _Tries:
    """Decides after a failed try whether there is to be another.

    Args:
        deadline: The call's deadline.
        repeat: Tells whether the call may be repeated.
        unsure: See `PostgresRequest`.
    """

    def __init__(self, deadline: Deadline | None, repeat: Callable[[], bool], unsure: str) -> None:
        self._deadline, self._repeat, self._unsure = deadline, repeat, unsure
        self._left = TRIES
        self._pause = SHORTEST_AWAY_PAUSE
        self.again = False
        """Whether a connection was lost, so that the next try must reckon with the call having happened."""
        self._perhaps = False
        """Whether a connection was lost without an answer that rules out that the call has happened."""

    def after(self, error: psycopg.Error) -> float:
        """Return the seconds to wait before the next try. Raises the error, or what it means, if there is no other."""
        deadline, lost = self._deadline, is_lost(error)
        away = deadline is not None and is_away(error)
        if deadline is not None and (isinstance(error, POOL_IS_FULL) or (lost and not deadline.left)):
            raise self._out_of_time(deadline, error, perhaps=(lost and not away) or self._perhaps) from error
        if not away:
            self._left -= 1
        if not (self._left and (lost or is_conflict(error)) and self._repeat()):
            raise error
        self.again |= lost
        self._perhaps |= lost and not away
        if deadline is None or not away:
            return 0.0
        spare = deadline.left - min(LAST_TRY, deadline.seconds / 4)
        if spare <= 0:  # a try without time would be cut, and nobody could say whether the call had happened
            raise self._out_of_time(deadline, error, perhaps=self._perhaps) from error
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_AWAY_PAUSE)
        return min(pause, spare)

    def _out_of_time(self, deadline: Deadline, error: psycopg.Error, *, perhaps: bool) -> StorageUnavailable:
        within = f"within {deadline.seconds:g} s"
        said = f"PostgreSQL answered: {cause_of(error)}" if is_away(error) else ""
        if not perhaps:
            away = error.__cause__  # why the pool could make no connection
            why = said or (
                f"PostgreSQL cannot be reached ({cause_of(away)})"
                if away
                else "all the pool may have are in use (max_size)"
            )
            nothing = ". Nothing was stored" if self._unsure else ""
            return StorageUnavailable(f"no connection {within}: {why}{nothing}")
        unsure = f": the call may have happened, or not. {self._unsure}" if self._unsure else ""
        return StorageUnavailable(
            f"{said}, and nothing else {within}{unsure}" if said else f"PostgreSQL did not answer {within}{unsure}"
        )


async def _in_lane(lane: Lane, deadline: Deadline, step: Send | CopyIn) -> Any:
    assert isinstance(step, Send)  # noqa: S101 - a COPY is never shared
    return await lane.execute(step.statement, step.params, deadline)
