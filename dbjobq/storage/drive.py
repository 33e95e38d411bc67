"""Makes the calls that `PostgresStorage` describes: one logic, sync and async (after psycopg's own generators).

Pools, callers' own connections, errors and repeats exist here once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final, Generic, TypeVar

import psycopg

from dbjobq.storage.base import Request
from dbjobq.storage.callers import async_caller, sync_caller
from dbjobq.storage.connections import Connections
from dbjobq.storage.faults import is_conflict, is_lost, translated
from dbjobq.storage.lane import Lane
from dbjobq.storage.steps import Call, CopyIn, Send, adrive, aperform, drive, perform

__all__ = ["PostgresRequest"]

R = TypeVar("R")

TRIES: Final = 3
"""How often a call is made whose connection is lost: the next one out of the pool may be about to end, too."""


class PostgresRequest(Generic[R]):
    """A call to PostgreSQL, not yet made (see `storage.base.Request`).

    Args:
        connections: Where to take a connection from.
        make: Starts the call; its argument says that it was started before, on a connection that was then lost, so that
            what it asks for may have happened.
        connection: The caller's own connection, in whose transaction the call is made.
        first: What must be made, and committed, before the call takes its connection.
        atomic: The call has several steps, which happen together or not at all.
        repeat: Tells, when its connection is lost or others were in its way, whether it may be made again.
        shared: On an event loop it may go out together with others (`lane.py`): its steps wait for no lock.
    """

    __slots__ = ("_atomic", "_connection", "_connections", "_first", "_make", "_repeat", "_shared")

    def __init__(  # noqa: PLR0913 - how a call is made
        self,
        connections: Connections,
        make: Callable[[bool], Call[R]],
        *,
        connection: object | None = None,
        first: Request[Any] | None = None,
        atomic: bool = False,
        repeat: Callable[[], bool] = lambda: True,
        shared: bool = False,
    ) -> None:
        self._connections, self._make, self._connection, self._first = connections, make, connection, first
        self._atomic, self._repeat, self._shared = atomic, repeat, shared

    def run(self) -> R:
        """Make the call. Raises ConfigError, SchemaError or StorageUnavailable for what is not its own fault.

        In a caller's transaction, which that has ended, a conflict with others is raised as it comes.
        """
        with translated(self._connections.schema, callers=self._connection is not None):
            caller = None if self._connection is None else sync_caller(self._connection, atomic=self._atomic)
            if self._first is not None:
                self._first.run()
            if caller is not None:
                with caller.block():
                    return drive(self._make(False), caller.perform)
            again, left = False, TRIES
            while True:
                left -= 1
                try:
                    return self._once(again=again)
                except psycopg.Error as error:
                    lost = is_lost(error)
                    if not (left and (lost or is_conflict(error)) and self._repeat()):
                        raise
                if lost:
                    self._connections.heal()
                    again = True

    def _once(self, *, again: bool) -> R:
        with self._connections.connection() as connection, self._transaction(connection):
            return drive(self._make(again), partial(perform, connection))

    def _transaction(self, connection: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()

    async def arun(self) -> R:
        """Make the call on the running event loop; raises as `run` does."""
        with translated(self._connections.schema, callers=self._connection is not None):
            caller = None if self._connection is None else await async_caller(self._connection, atomic=self._atomic)
            if self._first is not None:
                await self._first.arun()
            if caller is not None:
                async with caller.block():
                    return await adrive(self._make(False), caller.perform)
            again, left = False, TRIES
            while True:
                left -= 1
                try:
                    return await self._aonce(again=again)
                except psycopg.Error as error:
                    lost = is_lost(error)
                    if not (left and (lost or is_conflict(error)) and self._repeat()):
                        raise
                if lost:
                    await self._connections.aheal()
                    again = True

    async def _aonce(self, *, again: bool) -> R:
        if self._shared and not again and (lane := await self._connections.lane()) is not None:
            return await adrive(self._make(again), partial(_in_lane, lane))
        pool = await self._connections.async_pool()
        async with pool.connection() as connection, self._atransaction(connection):
            return await adrive(self._make(again), partial(aperform, connection))

    def _atransaction(self, connection: psycopg.AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()


async def _in_lane(lane: Lane, step: Send | CopyIn) -> Any:
    assert isinstance(step, Send)  # noqa: S101 - a COPY is never shared
    return await lane.execute(step.statement, step.params)
