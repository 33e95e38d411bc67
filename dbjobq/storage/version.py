"""Which migration this library is made for, and what to say when the database has another one."""

from __future__ import annotations

from typing import Final

from dbjobq.errors import SchemaError

__all__ = ["HEAD", "VERSION_TABLE", "check_version"]

HEAD: Final = "0001"
"""The newest file in `migrations/versions` (a test compares them)."""

VERSION_TABLE: Final = "schema_version"
"""Alembic's version table, in our own schema: never the user's `alembic_version`."""


def check_version(found: str | None, schema: str) -> None:
    """Refuse a database that is not at `HEAD`.

    Args:
        found: The revision in the version table; None where there is none.
        schema: The schema that was looked at.

    Raises:
        SchemaError: It is missing, older or newer; the message says what to do.
    """
    if found == HEAD:
        return
    if found is None:
        raise SchemaError(f"there are no dbjobq tables in schema {schema!r}: run `dbjobq migrate`")
    if found < HEAD:
        raise SchemaError(
            f"schema {schema!r} is at migration {found}, older than this library's {HEAD}: run `dbjobq migrate`"
        )
    raise SchemaError(
        f"schema {schema!r} is at migration {found}, newer than this library's {HEAD}: upgrade dbjobq here"
    )
