"""Fixtures for the tests of the storage."""

from __future__ import annotations

import pytest

from dbjobq.storage import scan
from tests.storage.database import database

__all__ = ["database"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look is taken for dear because the machine is slow: then a job may be found later than these tests look."""
    monkeypatch.setattr(scan, "DEAR", float("inf"))
