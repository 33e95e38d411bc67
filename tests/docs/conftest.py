from __future__ import annotations

from tests.storage.database import database

__all__ = ["database"]
