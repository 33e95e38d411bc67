"""Fixtures for the tests of the database roles."""

from __future__ import annotations

from tests.storage.database import database

__all__ = ["database"]
