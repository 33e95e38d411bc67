"""SQLAlchemy's side of `connection=`: the Connection that a caller's object is, or works on. Imports nothing for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["sqlalchemy_async_connection", "sqlalchemy_connection"]


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
