"""psycopg's errors in our words: which are worth another try, which are for people."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors as pg
from psycopg_pool import PoolClosed, PoolTimeout

from dbjobq.errors import ConfigError, DBJobQError, SchemaError, StorageUnavailable

__all__ = ["FORGET", "first_line", "is_lost", "translate", "translated"]

FORGET: Final = b"deallocate all"
"""To be sent after a pipeline that failed: psycopg believes that statements are prepared to which the server did not
come. It sees this one, and forgets them, too."""

_NO_TABLES: Final = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn, pg.UndefinedFunction)
_UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pg.ReadOnlySqlTransaction,  # a primary that has become a standby
    PoolTimeout,
)
_REFUSED: Final = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|(role|database) \".*\" does not exist|invalid (connection option|port)|server does not support SSL"
    r"|permission denied for database"
)
# A statement that is too large or too deep is an OperationalError to psycopg; sending it again would not help.
_TOO_MUCH: Final = (pg.StatementTooComplex, pg.ProgramLimitExceeded, pg.TooManyColumns, pg.TooManyArguments)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line, without a DSN's password (libpq never prints one)."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection or the server is gone, so that a fresh connection may do better."""
    if isinstance(error, psycopg.InternalError):
        return error.sqlstate is None  # psycopg's own: a backend's last words came in place of an answer
    return isinstance(error, _UNAVAILABLE) and not isinstance(error, (*_TOO_MUCH, PoolTimeout))


def translate(error: BaseException, schema: str) -> Exception | None:  # noqa: PLR0911 - a table
    """Return our error for one of psycopg's; None where there is none, such as for broken SQL."""
    if isinstance(error, DBJobQError):
        return error
    said = first_line(error)
    if isinstance(error, PoolClosed):
        return StorageUnavailable("this storage was closed: make a new one")
    if isinstance(error, _NO_TABLES):
        return SchemaError(f"there are no dbjobq tables in schema {schema!r}, or not all of them: run `dbjobq migrate`")
    if isinstance(error, pg.InsufficientPrivilege):
        return ConfigError(f"the database user may not do this in schema {schema!r}: {said}")
    if isinstance(error, psycopg.ProgrammingError) and "connection" in said and "invalid" in said:
        return ConfigError(f"the DSN cannot be read: {said}")
    if isinstance(error, (*_TOO_MUCH, psycopg.DataError)):
        return ValueError(f"PostgreSQL refuses a value: {said}")
    if not (isinstance(error, _UNAVAILABLE) or is_lost(error)):
        return None
    if isinstance(error, psycopg.OperationalError) and _REFUSED.search(str(error)):
        return ConfigError(f"PostgreSQL refused the connection: {_cause(error)}")
    return StorageUnavailable(f"PostgreSQL did not answer: {_cause(error)}")


def _cause(error: BaseException) -> str:
    """Return the line that says why: libpq's first ones name each address it tried."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(error) if not lines else min(lines, key=lambda line: "FATAL" not in line)


@contextmanager
def translated(schema: str) -> Generator[None]:
    """Raise our errors in place of psycopg's, the cause kept."""
    try:
        yield
    except (psycopg.Error, PoolTimeout, PoolClosed) as error:
        if (ours := translate(error, schema)) is None:
            raise
        raise ours from error
