"""Translates psycopg's errors into dbjobq's, and tells which of them are worth another try."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from dbjobq.errors import ConfigError, DBJobQError, SchemaError, StorageUnavailable

__all__ = [
    "POOL_IS_FULL",
    "RefusedForNow",
    "cause_of",
    "first_line",
    "forget_prepared",
    "is_away",
    "is_conflict",
    "is_lost",
    "is_passing",
    "is_refused",
    "translate",
    "translated",
]

_NO_TABLES: Final = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn, pg.UndefinedFunction)
_UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pg.ReadOnlySqlTransaction,  # a primary that has become a standby
    PoolTimeout,
    TooManyRequests,
)
POOL_IS_FULL: Final = (PoolTimeout, TooManyRequests)
_NOT_NOW: Final = frozenset({"57P03", "25006"})
"""SQLSTATEs of a server that starts or ends, is a standby, or takes no writes."""
_ENDED: Final = frozenset({"25P03", "25P04"})
"""SQLSTATEs of a transaction's timeouts, which end the session. psycopg makes them InternalErrors, if it knows them."""
# These are OperationalErrors, too, but the connection is well: the transaction met others, or took too long.
_CONFLICTS: Final = (pg.SerializationFailure, pg.DeadlockDetected)
_CANCELLED: Final = (pg.QueryCanceled, pg.LockNotAvailable)
_REFUSED: Final = re.compile(
    r"authentication failed|auth failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|(role|database) \".*\" does not exist|no such (user|database)|invalid (connection option|port)"
    r"|server does not support SSL|permission denied for database|is not permitted to log in"
    r"|is not currently accepting connections"
)
"""Messages of servers and poolers that refuse a connection: there is no SQLSTATE while a connection is made. Where a
server speaks another language, a refusal is taken for an outage, whose message says why."""
_SEVERITY: Final = ":  "
"""Part of every message of the server itself, in any language: `FATAL:  sorry, too many clients already`."""
_ANSWERED: Final = "answered"
_LEFT: Final = frozenset({"57P01", "57P02", "57P04", "57P05", *_ENDED})
"""SQLSTATEs with which a server ends a connection."""
_HINDERED: Final = "55000"
"""The SQLSTATE of a table in a state that a statement cannot use: it is published without a replica identity, say."""
_BROKEN: Final = "XX"
"""The class of errors inside the server: a corrupted page or index, a bug."""
_MIXED_UP: Final = (pg.DuplicatePreparedStatement, pg.InvalidSqlStatementName)
"""Errors of mixed-up prepared statements. Only a user's own connections meet them: dbjobq's own prepare nothing behind
a pooler (connections.py)."""
# A statement that is too large or too deep is an OperationalError to psycopg; sending it again would not help.
_TOO_MUCH: Final = (pg.StatementTooComplex, pg.ProgramLimitExceeded, pg.TooManyColumns, pg.TooManyArguments)


class RefusedForNow(psycopg.OperationalError):
    """A process that has been connected before was refused: perhaps a password is being changed, a database swapped."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message. It has no password of a DSN: libpq never prints one."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection or the server is gone, so that a new connection may do better."""
    if isinstance(error, psycopg.InternalError) and error.sqlstate is None:
        return True  # psycopg's own error: a backend's last message came in place of an answer
    gone = isinstance(error, _UNAVAILABLE) or (isinstance(error, psycopg.Error) and error.sqlstate in _ENDED)
    return (
        gone
        and not _is_hindered(error)
        and not isinstance(error, (*_TOO_MUCH, *_CONFLICTS, *_CANCELLED, *POOL_IS_FULL))
    )


def _is_hindered(error: BaseException) -> bool:
    """Tell whether the state of a table, or of the server, is in the way, until somebody mends that."""
    state = (error.sqlstate if isinstance(error, psycopg.Error) else None) or ""
    return state == _HINDERED or state.startswith(_BROKEN)


def is_refused(error: psycopg.OperationalError) -> bool:
    """Tell whether a connection was refused for its user, password or database, and not for the server's state."""
    return error.sqlstate is None and _REFUSED.search(str(error)) is not None


def is_away(error: BaseException) -> bool:
    """Tell whether something else answers than a server that can write: a pooler, a standby, a server that starts.

    The statement has not run, so it may be sent until there is such a server.
    """
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is not None and (state in _NOT_NOW or state.startswith("08"))


def is_conflict(error: BaseException) -> bool:
    """Tell whether a transaction was rolled back because of others at that moment: a repeat may succeed."""
    return isinstance(error, _CONFLICTS)


def is_passing(error: BaseException) -> bool:
    """Tell whether a statement failed for events around it, and not for its own text or values."""
    return is_lost(error) or isinstance(error, (*_CONFLICTS, *_CANCELLED))


async def forget_prepared(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make a connection usable after a pipeline that failed.

    psycopg believes that statements are prepared which the server never reached. `deallocate all` makes both forget.
    Not where nothing is prepared: behind a pooler it would hit the statements of others.
    """
    if connection.prepare_threshold is not None:
        await connection.execute(b"deallocate all")


def translate(error: BaseException, schema: str) -> Exception | None:  # noqa: C901, PLR0911 - a table
    """Return dbjobq's error for one of psycopg's; None where there is none, such as for broken SQL."""
    if isinstance(error, DBJobQError):
        return error
    said = first_line(error)
    if isinstance(error, PoolClosed):
        return StorageUnavailable("this storage was closed: make a new one")
    if isinstance(error, _NO_TABLES):
        return SchemaError(
            f"there are no dbjobq tables in schema {schema!r}, or not those this library needs: run `dbjobq migrate`"
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigError(f"the database user may not do this in schema {schema!r}: {said}")
    if isinstance(error, _MIXED_UP):
        return ConfigError(
            f"the connection leads through a pooler, which mixes up what clients prepare ({said}): "
            "make it, or its pool, with prepare_threshold=None"
        )
    if isinstance(error, psycopg.ProgrammingError) and "connection" in said and "invalid" in said:
        return ConfigError(f"the DSN cannot be read: {said}")
    if isinstance(error, (*_TOO_MUCH, psycopg.DataError)):
        return ValueError(f"PostgreSQL refuses a value: {said}")
    if isinstance(error, (*_CONFLICTS, *_CANCELLED)):
        return StorageUnavailable(f"PostgreSQL gave up the statement: {said}", answered=True)
    if _is_hindered(error):
        return StorageUnavailable(f"PostgreSQL answered: {said}", answered=True)
    if not (is_lost(error) or isinstance(error, POOL_IS_FULL)):
        return None
    if isinstance(error, psycopg.OperationalError) and is_refused(error):
        refused = f"PostgreSQL refused the connection: {cause_of(error)}"
        waited = isinstance(error, (RefusedForNow, *POOL_IS_FULL))
        return StorageUnavailable(refused) if waited else ConfigError(refused)
    if isinstance(error, POOL_IS_FULL) and error.__cause__ is None:
        return StorageUnavailable(f"no connection was free: {said} (max_size)")
    did = _did(error)
    return StorageUnavailable(f"PostgreSQL {did}: {cause_of(error)}", answered=did == _ANSWERED)


def _did(error: BaseException) -> str:
    """Tell whether a server that gave no result ended the connection, answered with an error, or said nothing."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state in _LEFT:
        return "ended the connection"
    return _ANSWERED if state or _SEVERITY in str(error) else "did not answer"


def cause_of(error: BaseException) -> str:
    """Return the line of a message that says why; libpq's first lines name each address that it tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(error) if not lines else min(lines, key=lambda line: "FATAL" not in line)


class translated:  # noqa: N801 - used as a function is, and in every call: a generator would cost more
    """Raises dbjobq's errors in place of psycopg's, also of those that SQLAlchemy has wrapped; the cause is kept.

    A class, since a generator would cost more in every call.

    Args:
        schema: The tables' schema.
        callers: The transaction is a caller's own. A conflict or a timeout is raised as it comes, for the caller to
            repeat the transaction.
        workers: The call is a worker's, which has no caller to see an error: also psycopg's other errors become
            dbjobq's, in words.
    """

    __slots__ = ("_callers", "_schema", "_workers")

    def __init__(self, schema: str, *, callers: bool = False, workers: bool = False) -> None:
        self._schema, self._callers, self._workers = schema, callers, workers

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception):
            return
        cause = _drivers(error)
        passes = self._callers and isinstance(cause, (*_CONFLICTS, *_CANCELLED))
        if cause is None or passes:
            return
        ours = translate(cause, self._schema)
        if ours is None and self._workers and isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
            said = (
                f"PostgreSQL refuses what is asked in schema {self._schema!r} ({cause.sqlstate}): {first_line(cause)}"
            )
            ours = ConfigError(f"{said}. Has somebody changed the tables, or added a trigger, a rule or a publication?")
        if ours is not None:
            raise ours from cause


def _drivers(error: Exception) -> Exception | None:
    """Return the driver's error: this one, or the one that SQLAlchemy has wrapped in it."""
    cause: object = error
    sqlalchemy = sys.modules.get("sqlalchemy.exc")  # without it there are no errors of SQLAlchemy's
    if sqlalchemy is not None and isinstance(error, sqlalchemy.DBAPIError):
        cause = getattr(error, "orig", None)
    return cause if isinstance(cause, psycopg.Error | PoolTimeout | PoolClosed) else None
