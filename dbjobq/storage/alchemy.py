"""SQLAlchemy's side: what its URLs say of a database, and the Connection that a caller's object is, or works on.

Imports nothing of it unless there is something of it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from dbjobq.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = [
    "Database",
    "awaited",
    "conninfo_of",
    "is_two_phase",
    "sqlalchemy_async_connection",
    "sqlalchemy_connection",
    "url_of",
]

R = TypeVar("R")

Database: TypeAlias = "str | URL | Engine | AsyncEngine"
"""What names a database to SQLAlchemy."""


def url_of(database: Database) -> URL:
    """Return a URL as it is, read, or an engine's.

    Raises:
        ConfigError: It cannot be read.
        TypeError: It is none of these.
    """
    from sqlalchemy import URL, exc, make_url

    given = getattr(database, "url", database)
    if not isinstance(given, str | URL):
        raise TypeError(f"database={database!r}: must be a URL or an engine of SQLAlchemy")
    try:
        return make_url(given)
    except (exc.ArgumentError, ValueError):  # what they quote may hold a password
        raise ConfigError("the URL cannot be read: write sqlite:///jobs.db, or postgresql://…") from None


def conninfo_of(url: URL) -> str:
    """Return what a URL says of PostgreSQL as libpq takes it; the driver is not ours.

    Raises:
        ConfigError: It has options that libpq does not know.
    """
    options: dict[str, Any] = {name: ",".join(values) for name, values in url.normalized_query.items()}
    try:
        return make_conninfo(**{**options, **url.translate_connect_args(username="user", database="dbname")})
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"libpq does not take these options of the URL: {', '.join(options)}") from error


def sqlalchemy_connection(given: object) -> Connection | None:
    """Return a Connection as it is, and the one a Session works on; None for anything else."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(given, Session | scoped_session):
        given = given.connection()
    return given if isinstance(given, Connection) else None


async def sqlalchemy_async_connection(given: object) -> AsyncConnection | None:
    """Return the same for their async kinds."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    if isinstance(given, AsyncSession | async_scoped_session):
        given = await given.connection()
    return given if isinstance(given, AsyncConnection) else None


def is_two_phase(connection: Connection | None) -> bool:
    """Tell whether a connection's transaction is to be prepared before it is committed."""
    from sqlalchemy import TwoPhaseTransaction

    return connection is not None and isinstance(connection.get_transaction(), TwoPhaseTransaction)


def awaited(call: Awaitable[R]) -> R:
    """Return what a call returns, on the sync side of an async engine, where `await` cannot be said."""
    from sqlalchemy.util import await_only

    return await_only(call)
