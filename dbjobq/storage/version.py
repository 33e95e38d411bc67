"""Which migration this library is made for, and what to say when the database has another one."""

from __future__ import annotations

import re
from typing import Final

from dbjobq.errors import SchemaError

__all__ = ["FIRST", "HEAD", "VERSION_TABLE", "check_version"]

HEAD: Final = "0001"
"""The newest file in `migrations/versions` (a test compares them)."""

FIRST: Final = "0001"
"""The oldest; between the two there is every number."""

VERSION_TABLE: Final = "schema_version"
"""Alembic's version table, in our own schema: never the user's `alembic_version`."""


def check_version(found: str | None, schema: str) -> None:
    """Refuse a database that is not at `HEAD`.

    Args:
        found: The revision in the version table; None where there is none.
        schema: The schema that was looked at.

    Raises:
        SchemaError: It is missing, older, newer or none of ours; the message says what to do.
    """
    if found == HEAD:
        return
    if found is None:
        raise SchemaError(f"there are no dbjobq tables in schema {schema!r}: run `dbjobq migrate`")
    if not re.fullmatch(r"\d{4}", found) or found < FIRST:
        raise SchemaError(
            f"schema {schema!r} is at migration {found!r}, which no release of dbjobq has: "
            f"look at its table {VERSION_TABLE}, or name another schema"
        )
    if found < HEAD:
        raise SchemaError(
            f"schema {schema!r} is at migration {found}, older than this library's {HEAD}: run `dbjobq migrate`"
        )
    raise SchemaError(
        f"schema {schema!r} is at migration {found}, newer than this library's {HEAD}: upgrade dbjobq here"
    )
