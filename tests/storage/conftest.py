"""Fixtures for the tests of the storage."""

from __future__ import annotations

import pytest

from tests.storage.database import database

__all__ = ["database"]


@pytest.fixture(autouse=True)
def at_once(cheap_looks: None) -> None:
    """These tests look themselves, and wait for nothing."""
