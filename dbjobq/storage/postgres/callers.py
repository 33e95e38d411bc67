"""Callers' own connections (`connection=`): the kinds that there are, and how steps are performed on each.

The transaction is the caller's: it is begun if need be, and never ended here. SQLAlchemy's connections are used through
SQLAlchemy, so that SQLAlchemy knows of a transaction that begins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any, Final, NamedTuple, TypeGuard

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from dbjobq.storage.alchemy import awaited, is_two_phase, sqlalchemy_async_connection, sqlalchemy_connection
from dbjobq.storage.postgres.steps import CopyIn, Send, aperform, perform

__all__ = ["AsyncCaller", "Caller", "async_caller", "sync_caller"]

_BROKEN: Final = (
    "connection={}: must be a psycopg 3 connection, or SQLAlchemy's Connection or Session (or their async kinds) on "
    "psycopg: {}"
)
_AUTOCOMMIT: Final = (
    "connection={}: it is in autocommit, so there is no transaction to be part of, and the job would be there at once: "
    "open one ({}), or enqueue without connection="
)
_PIPELINE: Final = "connection={}: it is in pipeline mode, where no COPY can run: enqueue_many outside of the pipeline"


class Caller(NamedTuple):
    """A caller's connection."""

    perform: Callable[[Send | CopyIn], Any]
    block: Callable[[], AbstractContextManager[Any]]
    """A block whose steps happen together or not at all, if `atomic` was asked for."""


class AsyncCaller(NamedTuple):
    """A caller's async connection; see `Caller`."""

    perform: Callable[[Send | CopyIn], Awaitable[Any]]
    block: Callable[[], AbstractAsyncContextManager[Any]]


def sync_caller(connection: object, *, atomic: bool) -> Caller:
    """Return how steps are performed on a caller's connection.

    Args:
        connection: The caller's connection.
        atomic: Whether several steps are to happen together or not at all.

    Raises:
        TypeError: The connection is of a kind on which jobs cannot be written.
        ValueError: The connection is in a state in which jobs cannot be written.
    """
    if _is_sync(connection):
        _check_state(connection, atomic=atomic)

        def directly(step: Send | CopyIn) -> Any:
            return perform(connection, _quiet(step) if two_phase and isinstance(step, Send) else step)

        two_phase = _is_two_phase(connection)
        return Caller(directly, partial(_block, connection) if atomic else nullcontext)
    if _is_async(connection):
        raise TypeError(_BROKEN.format(type(connection).__name__, "an async connection goes with AsyncJobQueue"))
    if (owner := sqlalchemy_connection(connection)) is not None:
        _check_driver(owner, owner.dialect.driver)
        driver = _driver_connection(owner.connection)
        _check_transactional(owner, driver)

        def through(step: Send | CopyIn) -> Any:
            if isinstance(step, Send):
                step = _quiet(step) if two_phase else step
                return owner.exec_driver_sql(step.statement.decode(), dict(step.params)).fetchall()
            if _is_async(driver):  # the sync side of an async engine, as in `AsyncSession.run_sync`
                return awaited(aperform(driver, step))
            return perform(driver, step)

        two_phase = is_two_phase(owner)
        return Caller(through, owner.begin_nested if atomic else nullcontext)
    raise TypeError(_BROKEN.format(type(connection).__name__, "it is none of these"))


async def async_caller(connection: object, *, atomic: bool) -> AsyncCaller:
    """Return how steps are performed on a caller's async connection; see `sync_caller`."""
    if _is_async(connection):
        _check_state(connection, atomic=atomic)

        def directly(step: Send | CopyIn) -> Awaitable[Any]:
            return aperform(connection, _quiet(step) if two_phase and isinstance(step, Send) else step)

        two_phase = _is_two_phase(connection)
        return AsyncCaller(directly, partial(_ablock, connection) if atomic else nullcontext)
    if _is_sync(connection):
        raise TypeError(_BROKEN.format(type(connection).__name__, "a sync connection goes with JobQueue"))
    if (owner := await sqlalchemy_async_connection(connection)) is not None:
        _check_driver(owner, owner.dialect.driver)
        driver = _driver_connection(await owner.get_raw_connection())
        _check_transactional(owner, driver)

        async def through(step: Send | CopyIn) -> Any:
            if isinstance(step, CopyIn):
                return await aperform(driver, step)
            step = _quiet(step) if two_phase else step
            return (await owner.exec_driver_sql(step.statement.decode(), dict(step.params))).fetchall()

        two_phase = is_two_phase(owner.sync_connection)
        return AsyncCaller(through, owner.begin_nested if atomic else nullcontext)
    raise TypeError(_BROKEN.format(type(connection).__name__, "it is none of these"))


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


def _quiet(step: Send) -> Send:
    """Return the step without NOTIFY: PostgreSQL prepares no transaction for a two-phase commit that has notified."""
    return step._replace(params={**step.params, "notify": False}) if "notify" in step.params else step


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
