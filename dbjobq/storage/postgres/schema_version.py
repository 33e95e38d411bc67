"""The migration that this library is made for, and the tables that it works on (docs/migrations.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from dbjobq.errors import SchemaError

__all__ = ["FIRST", "HEAD", "VERSION_TABLE", "check_version"]

HEAD: Final = "0005"
"""The newest file in `migrations/versions` (a test compares them)."""

FIRST: Final = "0001"
"""The oldest migration; between the oldest and the newest there is every number."""

VERSION_TABLE: Final = "schema_version"
"""Alembic's version table for dbjobq, in dbjobq's schema: never the user's `alembic_version`."""


def check_version(rows: Sequence[Sequence[Any]], schema: str) -> str:
    """Refuse tables that this library does not run on: all but those at `HEAD`, and newer ones that say it does.

    Args:
        rows: The rows of `version.sql`: the revision, and that of the oldest library that runs on it; none without
            tables.
        schema: The tables' schema.

    Returns:
        The revision.

    Raises:
        SchemaError: The tables are missing, older, too new or not dbjobq's. The message says what to do.
    """
    if not rows:
        raise SchemaError(f"there are no dbjobq tables in schema {schema!r}: run `dbjobq migrate`")
    found: str = rows[0][0]
    compatible_from: str = rows[0][1] or found
    if not re.fullmatch(r"\d{4}", found) or found < FIRST:
        raise SchemaError(
            f"schema {schema!r} is at migration {found!r}, which no release of dbjobq has: "
            f"look at its table {VERSION_TABLE}, or name another schema"
        )
    if found < HEAD:
        raise SchemaError(
            f"schema {schema!r} is at migration {found}, older than this library's {HEAD}: run `dbjobq migrate`"
        )
    if compatible_from > HEAD:
        raise SchemaError(
            f"schema {schema!r} is at migration {found}, newer than this library's {HEAD}, "
            f"and needs a library of {compatible_from} or later: upgrade dbjobq here"
        )
    return found
