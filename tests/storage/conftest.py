"""Fixtures for the tests of the storage."""

from __future__ import annotations

from tests.storage.database import database

__all__ = ["database"]
