"""A storage by its address, so that one test runs on both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbjobq import PostgresStorage

if TYPE_CHECKING:
    from dbjobq import BaseStorage

__all__ = ["storage_at"]


def storage_at(address: str) -> BaseStorage:
    """A storage on SQLite for a URL of it, on PostgreSQL for any other address."""
    if not address.startswith("sqlite:"):
        return PostgresStorage(address)
    from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

    return SQLAlchemyStorage(address)
