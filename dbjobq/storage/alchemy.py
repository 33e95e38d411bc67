"""SQLAlchemy's URLs as DSNs, and the Connection behind a caller's Connection or Session.

SQLAlchemy is imported only where the caller has imported it, or hands over an object of it.
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
"""A database as SQLAlchemy names it: a URL, or an engine."""


def url_of(database: Database) -> URL:
    """Return the URL of a database, whether given as text, as a URL or as an engine.

    Raises:
        ConfigError: The text cannot be read.
        TypeError: The value is none of these.
    """
    from sqlalchemy import URL, exc, make_url

    given = getattr(database, "url", database)
    if not isinstance(given, str | URL):
        raise TypeError(f"database={database!r}: must be a URL or an engine of SQLAlchemy")
    try:
        return make_url(given)
    except (exc.ArgumentError, ValueError):  # these errors may quote a password
        raise ConfigError("the URL cannot be read: write sqlite:///jobs.db, or postgresql://…") from None


def conninfo_of(url: URL) -> str:
    """Return a PostgreSQL URL of SQLAlchemy as a DSN for libpq, without the driver that it names.

    Raises:
        ConfigError: The URL has options that libpq does not know.
    """
    options: dict[str, Any] = {name: ",".join(values) for name, values in url.normalized_query.items()}
    try:
        return make_conninfo(**{**options, **url.translate_connect_args(username="user", database="dbname")})
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"libpq does not take these options of the URL: {', '.join(options)}") from error


def sqlalchemy_connection(given: object) -> Connection | None:
    """Return a Connection as it is, and for a Session the Connection it works on; None for anything else."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    if isinstance(given, Session | scoped_session):
        given = given.connection()
    return given if isinstance(given, Connection) else None


async def sqlalchemy_async_connection(given: object) -> AsyncConnection | None:
    """Return the AsyncConnection of an AsyncConnection or AsyncSession; None for anything else."""
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
    """Return the result of an awaitable on the sync side of an async engine, where there is no `await`."""
    from sqlalchemy.util import await_only

    return await_only(call)
