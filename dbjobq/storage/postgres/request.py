"""Makes the calls that `PostgresStorage` describes: one logic, sync and async (after psycopg's own generators).

Pools, callers' own connections, errors and repeats exist here once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypedDict, TypeVar

import psycopg

from dbjobq.storage.postgres.callers import AsyncCaller, Caller, async_caller, sync_caller
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Deadline
from dbjobq.storage.postgres.connect.errors import is_lost, translated
from dbjobq.storage.postgres.connect.group_commit import GroupCommit
from dbjobq.storage.postgres.repeats import Outdated, Repeats
from dbjobq.storage.postgres.steps import CopyIn, Make, Send, adrive, aperform, drive, perform

__all__ = ["Beforehand", "How", "Learning", "PostgresRequest"]

R = TypeVar("R")
Learning: TypeAlias = "Generator[Send | PostgresRequest[Any], Any, None]"
"""Yields questions, and is sent the answers: a statement on a caller's connection, or a call of its own."""


class Beforehand(Protocol):
    """Something that must be known, or made and committed, before a call."""

    @property
    def known(self) -> bool:
        """Whether it is known already."""
        ...

    def learn(self, *, anew: bool, callers: bool) -> Learning:
        """Learn it, or make it.

        Args:
            anew: Whether what is remembered has turned out to be wrong.
            callers: Whether the call is made on a caller's connection: a look-up there may make another connection
                unnecessary.
        """
        ...


class How(TypedDict, total=False):
    """How a request is made; see `PostgresRequest`."""

    first: Beforehand | None
    atomic: bool
    repeat: Callable[[], bool]
    bounded: bool
    alone: bool
    shared: bool
    unsure: str
    pinned: bool | None


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
        make: Make[R],
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
            repeats = self._repeats(deadline)
            while True:
                if (steps := self._to_learn(anew=repeats.anew)) is not None:
                    drive(steps, partial(_learned, deadline, caller))
                since = time.monotonic()
                try:
                    return self._once(deadline, caller, again=repeats.again)
                except (Outdated, psycopg.Error) as error:
                    if caller is None and is_lost(error):
                        self._connections.heal(since)
                    pause = repeats.after(error)
                time.sleep(pause)

    def _repeats(self, deadline: Deadline | None) -> Repeats:
        return Repeats(deadline, self._repeat, unsure=self._unsure, callers=self._connection is not None)

    def _to_learn(self, *, anew: bool) -> Learning | None:
        if self._first is None or (self._first.known and not anew):
            return None
        return self._first.learn(anew=anew, callers=self._connection is not None)

    def _deadline(self) -> Deadline | None:
        return Deadline(self._connections.timeout) if self._bounded else None

    def _once(self, deadline: Deadline | None, caller: Caller | None, *, again: bool) -> R:
        if caller is not None:
            with caller.block():
                return drive(self._make(again), caller.perform)
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
            repeats = self._repeats(deadline)
            while True:
                if (steps := self._to_learn(anew=repeats.anew)) is not None:
                    await adrive(steps, partial(_alearned, deadline, caller))
                since = time.monotonic()
                try:
                    return await self._aonce(deadline, caller, again=repeats.again)
                except (Outdated, psycopg.Error) as error:
                    if caller is None and is_lost(error):
                        await self._connections.aheal(since)
                    pause = repeats.after(error)
                await asyncio.sleep(pause)

    async def _aonce(self, deadline: Deadline | None, caller: AsyncCaller | None, *, again: bool) -> R:
        if caller is not None:
            async with caller.block():
                return await adrive(self._make(again), caller.perform)
        if self._shared and deadline is not None and not again:
            group = await self._connections.group_commit()
            if group is not None:
                return await adrive(self._make(again), partial(_in_group, group, deadline))
        async with (
            self._connections.aconnection(deadline, alone=self._alone, pinned=self._pinned) as connection,
            self._atransaction(connection),
        ):
            return await adrive(self._make(again), partial(aperform, connection, deadline=deadline))

    def _atransaction(self, connection: psycopg.AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()


async def _in_group(group: GroupCommit, deadline: Deadline, step: Send | CopyIn) -> Any:
    assert isinstance(step, Send)  # noqa: S101 - a COPY is never shared
    return await group.execute(step.statement, step.params, deadline)


def _learned(deadline: Deadline | None, caller: Caller | None, step: Send | PostgresRequest[Any]) -> Any:
    if isinstance(step, PostgresRequest):
        return step.run_by(deadline)
    assert caller is not None  # noqa: S101 - only what is asked on a caller's connection is sent by itself
    return caller.perform(step)


async def _alearned(deadline: Deadline | None, caller: AsyncCaller | None, step: Send | PostgresRequest[Any]) -> Any:
    if isinstance(step, PostgresRequest):
        return await step.arun_by(deadline)
    assert caller is not None  # noqa: S101 - as above
    return await caller.perform(step)
