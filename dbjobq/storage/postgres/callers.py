"""Callers' own connections (`connection=`): the kinds that there are, and how steps are performed on each.

The transaction is the caller's: it is begun if need be, and never ended here. SQLAlchemy's connections are used through
SQLAlchemy, so that SQLAlchemy knows of a transaction that begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from dbjobq.storage.alchemy import awaited, is_two_phase, sqlalchemy_async_connection, sqlalchemy_connection
from dbjobq.storage.postgres.steps import CopyIn, Send, aperform, perform

if TYPE_CHECKING:
    from sqlalchemy import Connection as SQLAlchemyConnection
    from sqlalchemy.ext.asyncio import AsyncConnection as SQLAlchemyAsyncConnection

__all__ = ["ASYNC_KINDS", "SYNC_KINDS", "AsyncCaller", "Caller", "async_caller", "sync_caller"]

_BROKEN: Final = (
    "connection={}: must be a psycopg 3 connection, or SQLAlchemy's Connection or Session (or their async kinds) on "
    "psycopg: {}"
)
_AUTOCOMMIT: Final = (
    "connection={}: it is in autocommit, so there is no transaction to be part of, and the job would be there at once: "
    "open one ({}), or enqueue without connection="
)
_PIPELINE: Final = "connection={}: it is in pipeline mode, where no COPY can run: enqueue_many outside of the pipeline"


class Caller(ABC):
    """A caller's connection: a kind of connection is a subclass, which `SYNC_KINDS` has in it."""

    @classmethod
    @abstractmethod
    def of(cls, connection: object, *, atomic: bool) -> Caller | None:
        """Return how steps are performed on a connection; None if it is of another kind.

        Args:
            connection: The caller's connection.
            atomic: Whether several steps are to happen together or not at all.

        Raises:
            TypeError: The connection runs on a driver with which jobs cannot be written.
            ValueError: The connection is in a state in which jobs cannot be written.
        """

    @abstractmethod
    def perform(self, step: Send | CopyIn) -> Any:
        """Perform a step, and return its rows."""

    @abstractmethod
    def block(self) -> AbstractContextManager[Any]:
        """Return a block whose steps happen together or not at all, if `atomic` was asked for."""


class AsyncCaller(ABC):
    """A caller's async connection: see `Caller`; `ASYNC_KINDS` has its kinds."""

    @classmethod
    @abstractmethod
    async def of(cls, connection: object, *, atomic: bool) -> AsyncCaller | None:
        """See `Caller.of`."""

    @abstractmethod
    async def perform(self, step: Send | CopyIn) -> Any:
        """See `Caller.perform`."""

    @abstractmethod
    def block(self) -> AbstractAsyncContextManager[Any]:
        """See `Caller.block`."""


def sync_caller(connection: object, *, atomic: bool) -> Caller:
    """Return how steps are performed on a connection. Raises as `Caller.of` does; TypeError for one of no kind, too."""
    for kind in SYNC_KINDS:
        if (caller := kind.of(connection, atomic=atomic)) is not None:
            return caller
    is_async = _is_async(connection)
    raise _of_no_kind(connection, "an async connection goes with AsyncJobQueue" if is_async else "it is none of these")


async def async_caller(connection: object, *, atomic: bool) -> AsyncCaller:
    """Return how steps are performed on a caller's async connection; see `sync_caller`."""
    for kind in ASYNC_KINDS:
        if (caller := await kind.of(connection, atomic=atomic)) is not None:
            return caller
    is_sync = _is_sync(connection)
    raise _of_no_kind(connection, "a sync connection goes with JobQueue" if is_sync else "it is none of these")


def _of_no_kind(connection: object, why: str) -> TypeError:
    return TypeError(_BROKEN.format(type(connection).__name__, why))


class PsycopgCaller(Caller):
    """A psycopg connection."""

    def __init__(self, connection: psycopg.Connection[Any], *, atomic: bool) -> None:
        self._connection, self._atomic = connection, atomic
        self._two_phase = _is_two_phase(connection)

    @classmethod
    def of(cls, connection: object, *, atomic: bool) -> PsycopgCaller | None:
        """See `Caller.of`."""
        if not _is_sync(connection):
            return None
        _check_state(connection, atomic=atomic)
        return cls(connection, atomic=atomic)

    def perform(self, step: Send | CopyIn) -> Any:
        """See `Caller.perform`."""
        return perform(self._connection, _fitting(step, two_phase=self._two_phase))

    def block(self) -> AbstractContextManager[Any]:
        """See `Caller.block`."""
        return _block(self._connection) if self._atomic else nullcontext()


class AsyncPsycopgCaller(AsyncCaller):
    """An async psycopg connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, atomic: bool) -> None:
        self._connection, self._atomic = connection, atomic
        self._two_phase = _is_two_phase(connection)

    @classmethod
    async def of(cls, connection: object, *, atomic: bool) -> AsyncPsycopgCaller | None:
        """See `Caller.of`."""
        if not _is_async(connection):
            return None
        _check_state(connection, atomic=atomic)
        return cls(connection, atomic=atomic)

    async def perform(self, step: Send | CopyIn) -> Any:
        """See `Caller.perform`."""
        return await aperform(self._connection, _fitting(step, two_phase=self._two_phase))

    def block(self) -> AbstractAsyncContextManager[Any]:
        """See `Caller.block`."""
        return _ablock(self._connection) if self._atomic else nullcontext()


class SQLAlchemyCaller(Caller):
    """SQLAlchemy's Connection, or the one on which a Session works.

    Args:
        owner: The Connection.
        driver: The driver's connection in it, for COPY.
        atomic: See `Caller.of`.
    """

    def __init__(self, owner: SQLAlchemyConnection, driver: Any, *, atomic: bool) -> None:
        self._owner, self._driver, self._atomic = owner, driver, atomic
        self._two_phase = is_two_phase(owner)

    @classmethod
    def of(cls, connection: object, *, atomic: bool) -> SQLAlchemyCaller | None:
        """See `Caller.of`."""
        if (owner := sqlalchemy_connection(connection)) is None:
            return None
        _check_driver(owner, owner.dialect.driver)
        driver = _driver_connection(owner.connection)
        _check_transactional(owner, driver)
        return cls(owner, driver, atomic=atomic)

    def perform(self, step: Send | CopyIn) -> Any:
        """See `Caller.perform`."""
        step = _fitting(step, two_phase=self._two_phase)
        if isinstance(step, Send):
            return self._owner.exec_driver_sql(step.statement.decode(), dict(step.params)).fetchall()
        if _is_async(self._driver):  # an async engine's sync side (`AsyncSession.run_sync`)
            return awaited(aperform(self._driver, step))
        return perform(self._driver, step)

    def block(self) -> AbstractContextManager[Any]:
        """See `Caller.block`."""
        return self._owner.begin_nested() if self._atomic else nullcontext()


class AsyncSQLAlchemyCaller(AsyncCaller):
    """SQLAlchemy's AsyncConnection, or the one on which an AsyncSession works; see `SQLAlchemyCaller`."""

    def __init__(self, owner: SQLAlchemyAsyncConnection, driver: Any, *, atomic: bool) -> None:
        self._owner, self._driver, self._atomic = owner, driver, atomic
        self._two_phase = is_two_phase(owner.sync_connection)

    @classmethod
    async def of(cls, connection: object, *, atomic: bool) -> AsyncSQLAlchemyCaller | None:
        """See `Caller.of`."""
        if (owner := await sqlalchemy_async_connection(connection)) is None:
            return None
        _check_driver(owner, owner.dialect.driver)
        driver = _driver_connection(await owner.get_raw_connection())
        _check_transactional(owner, driver)
        return cls(owner, driver, atomic=atomic)

    async def perform(self, step: Send | CopyIn) -> Any:
        """See `Caller.perform`."""
        step = _fitting(step, two_phase=self._two_phase)
        if isinstance(step, CopyIn):
            return await aperform(self._driver, step)
        return (await self._owner.exec_driver_sql(step.statement.decode(), dict(step.params))).fetchall()

    def block(self) -> AbstractAsyncContextManager[Any]:
        """See `Caller.block`."""
        return self._owner.begin_nested() if self._atomic else nullcontext()


SYNC_KINDS: Final[list[type[Caller]]] = [PsycopgCaller, SQLAlchemyCaller]
"""The kinds of connections that a JobQueue writes on, asked in this order; an integration adds its own."""
ASYNC_KINDS: Final[list[type[AsyncCaller]]] = [AsyncPsycopgCaller, AsyncSQLAlchemyCaller]
"""The same for an AsyncJobQueue."""


def _is_sync(connection: object) -> TypeGuard[psycopg.Connection[Any]]:
    return isinstance(connection, psycopg.Connection)


def _is_async(connection: object) -> TypeGuard[psycopg.AsyncConnection[Any]]:
    return isinstance(connection, psycopg.AsyncConnection)


def _check_state(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], *, atomic: bool) -> None:
    pipeline = connection.pgconn.pipeline_status != PipelineStatus.OFF
    if atomic and pipeline:
        raise ValueError(_PIPELINE.format(type(connection).__name__))
    # The statements of a pipeline are one transaction until it is synced; whether there is one around it is unknown.
    if connection.autocommit and not pipeline and connection.info.transaction_status == TransactionStatus.IDLE:
        raise ValueError(_AUTOCOMMIT.format(type(connection).__name__, "with connection.transaction()"))


def _is_two_phase(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the transaction was begun by `tpc_begin`; psycopg has no public way to ask."""
    return getattr(connection, "_tpc", None) is not None


def _fitting(step: Send | CopyIn, *, two_phase: bool) -> Send | CopyIn:
    """Return the step without NOTIFY for a two-phase commit: PostgreSQL prepares no transaction that has notified."""
    if two_phase and isinstance(step, Send) and "notify" in step.params:
        return step._replace(params={**step.params, "notify": False})
    return step


def _check_driver(connection: object, driver: str) -> None:
    if not driver.startswith("psycopg") or driver == "psycopg2":
        raise TypeError(_BROKEN.format(type(connection).__name__, f"this one runs on {driver}"))


def _check_transactional(connection: object, driver: Any) -> None:
    if driver.autocommit:
        do = "an engine or connection with another isolation_level"
        raise ValueError(_AUTOCOMMIT.format(type(connection).__name__, do))


def _driver_connection(fairy: Any) -> Any:
    return fairy.driver_connection


def _begins(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether the next statement begins a transaction. `transaction()` would end a transaction that it begins."""
    return not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE


@contextmanager
def _block(connection: psycopg.Connection[Any]) -> Generator[None]:
    if _begins(connection):
        psycopg.Cursor(connection).execute("select")
    with connection.transaction():
        yield


@asynccontextmanager
async def _ablock(connection: psycopg.AsyncConnection[Any]) -> AsyncGenerator[None]:
    if _begins(connection):
        await psycopg.AsyncCursor(connection).execute("select")
    async with connection.transaction():
        yield
