"""Makes the calls that `PostgresStorage` describes: one logic, sync and async (after psycopg's own generators).

A step of a call is a `Send` or a `CopyIn`; a call is a generator that yields steps and is sent their rows. This module
is the only one that touches a connection for them: pools, callers' own connections, errors and repeats exist here once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeGuard, TypeVar

import psycopg
from psycopg.rows import dict_row, tuple_row

from dbjobq.storage.base import Request
from dbjobq.storage.callers import sqlalchemy_async_connection, sqlalchemy_connection
from dbjobq.storage.connections import Connections
from dbjobq.storage.faults import is_lost, translated
from dbjobq.storage.lane import Lane

__all__ = ["Call", "CopyIn", "PostgresRequest", "Send"]

R = TypeVar("R")


class Send(NamedTuple):
    """A statement that returns rows, and its values; answered by its rows."""

    statement: bytes
    params: Mapping[str, Any]
    as_dicts: bool = False


class CopyIn(NamedTuple):
    """A COPY and its text, which may be made while the server reads what was sent before; answered by no rows."""

    statement: bytes
    pieces: Iterable[bytes]


Call: TypeAlias = Generator[Send | CopyIn, Any, R]

_BROKEN: Final = (
    "connection={}: must be a psycopg 3 connection, or SQLAlchemy's Connection or Session (or their async kinds) on "
    "psycopg: {}"
)


class PostgresRequest(Generic[R]):
    """A call to PostgreSQL, not yet made (see `storage.base.Request`).

    Args:
        connections: Where to take a connection from.
        make: Starts the call; its argument says that it was started before, on a connection that was then lost, so that
            what it asks for may have happened.
        connection: The caller's own connection, in whose transaction the call is made.
        first: What must be made, and committed, before the call takes its connection.
        atomic: The call has several steps, which happen together or not at all.
        repeat: Tells, when its connection is lost, whether it may be made again, once.
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
        """Make the call. Raises ConfigError, SchemaError or StorageUnavailable for what is not its own fault."""
        if self._first is not None:
            self._first.run()
        with translated(self._connections.schema):
            try:
                return self._once(again=False)
            except psycopg.Error as error:
                if self._connection is not None or not (is_lost(error) and self._repeat()):
                    raise
            self._connections.heal()
            return self._once(again=True)

    def _once(self, *, again: bool) -> R:
        if self._connection is not None:
            return _drive(self._make(again), _sync_caller(self._connection))
        with self._connections.connection() as connection, self._transaction(connection):
            return _drive(self._make(again), lambda step: _perform(connection, step))

    def _transaction(self, connection: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()

    async def arun(self) -> R:
        """Make the call on the running event loop; raises as `run` does."""
        if self._first is not None:
            await self._first.arun()
        with translated(self._connections.schema):
            try:
                return await self._aonce(again=False)
            except psycopg.Error as error:
                if self._connection is not None or not (is_lost(error) and self._repeat()):
                    raise
            await self._connections.aheal()
            return await self._aonce(again=True)

    async def _aonce(self, *, again: bool) -> R:
        if self._connection is not None:
            caller = await _async_caller(self._connection)
            return await _adrive(self._make(again), caller)
        if self._shared and not again and (lane := await self._connections.lane()) is not None:
            return await _adrive(self._make(again), partial(_in_lane, lane))
        pool = await self._connections.async_pool()
        async with pool.connection() as connection, self._atransaction(connection):
            return await _adrive(self._make(again), lambda step: _aperform(connection, step))

    def _atransaction(self, connection: psycopg.AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
        return connection.transaction() if self._atomic else nullcontext()


def _drive(call: Call[R], perform: Callable[[Send | CopyIn], Any]) -> R:
    answer: Any = None
    while True:
        try:
            step = call.send(answer)
        except StopIteration as stop:
            value: R = stop.value
            return value
        answer = perform(step)


async def _adrive(call: Call[R], perform: Callable[[Send | CopyIn], Any]) -> R:
    answer: Any = None
    while True:
        try:
            step = call.send(answer)
        except StopIteration as stop:
            value: R = stop.value
            return value
        answer = await perform(step)


def _perform(connection: psycopg.Connection[Any], step: Send | CopyIn) -> Any:
    if isinstance(step, CopyIn):
        with connection.cursor().copy(step.statement) as copy:
            for piece in step.pieces:
                copy.write(piece)
        return []
    cursor: psycopg.Cursor[Any] = connection.cursor(row_factory=dict_row if step.as_dicts else tuple_row)
    return cursor.execute(step.statement, step.params).fetchall()


async def _aperform(connection: psycopg.AsyncConnection[Any], step: Send | CopyIn) -> Any:
    if isinstance(step, CopyIn):
        async with connection.cursor().copy(step.statement) as copy:
            for piece in step.pieces:
                await copy.write(piece)
        return []
    cursor: psycopg.AsyncCursor[Any] = connection.cursor(row_factory=dict_row if step.as_dicts else tuple_row)
    await cursor.execute(step.statement, step.params)
    return await cursor.fetchall()


async def _in_lane(lane: Lane, step: Send | CopyIn) -> Any:
    assert isinstance(step, Send)  # noqa: S101 - a COPY is never shared
    return await lane.execute(step.statement, step.params)


# Callers' connections. SQLAlchemy's are driven through SQLAlchemy, so that it knows of the transaction that begins.


def _is_sync(connection: object) -> TypeGuard[psycopg.Connection[Any]]:
    return isinstance(connection, psycopg.Connection)


def _is_async(connection: object) -> TypeGuard[psycopg.AsyncConnection[Any]]:
    return isinstance(connection, psycopg.AsyncConnection)


def _sync_caller(connection: object) -> Callable[[Send | CopyIn], Any]:
    if _is_sync(connection):
        return partial(_perform, connection)
    if _is_async(connection):
        raise TypeError(_BROKEN.format(type(connection).__name__, "an async connection goes with AsyncJobQueue"))
    if (owner := sqlalchemy_connection(connection)) is not None:
        _check_driver(owner, owner.dialect.driver)

        def perform(step: Send | CopyIn) -> Any:
            if isinstance(step, CopyIn):
                return _perform(_driver_connection(owner.connection), step)
            result = owner.exec_driver_sql(step.statement.decode(), dict(step.params))
            return result.fetchall() if result.returns_rows else []

        return perform
    raise TypeError(_BROKEN.format(type(connection).__name__, "it is none of these"))


async def _async_caller(connection: object) -> Callable[[Send | CopyIn], Any]:
    if _is_async(connection):
        return partial(_aperform, connection)
    if _is_sync(connection):
        raise TypeError(_BROKEN.format(type(connection).__name__, "a sync connection goes with JobQueue"))
    if (owner := await sqlalchemy_async_connection(connection)) is not None:
        _check_driver(owner, owner.dialect.driver)

        async def perform(step: Send | CopyIn) -> Any:
            if isinstance(step, CopyIn):
                return await _aperform(_driver_connection(await owner.get_raw_connection()), step)
            result = await owner.exec_driver_sql(step.statement.decode(), dict(step.params))
            return result.fetchall() if result.returns_rows else []

        return perform
    raise TypeError(_BROKEN.format(type(connection).__name__, "it is none of these"))


def _check_driver(connection: object, driver: str) -> None:
    if not driver.startswith("psycopg") or driver == "psycopg2":
        raise TypeError(_BROKEN.format(type(connection).__name__, f"this one runs on {driver}"))


def _driver_connection(fairy: Any) -> Any:
    return fairy.driver_connection
