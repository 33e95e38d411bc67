"""The environment variables that name the database and the schema, for programs and the command line alike."""

from __future__ import annotations

import os
import re
from typing import Final

from dbjobq.errors import ConfigError

__all__ = [
    "DEFAULT_SCHEMA",
    "DSN_VARIABLES",
    "LISTEN_DSN_VARIABLE",
    "SCHEMA_VARIABLE",
    "libpq_form",
    "named_dsn",
    "named_schema",
]

DSN_VARIABLES: Final = ("DBJOBQ_DSN", "DATABASE_URL")
"""The variables for the DSN. The first that is not empty counts; without any, libpq's `PG*` variables do."""
SCHEMA_VARIABLE: Final = "DBJOBQ_SCHEMA"
LISTEN_DSN_VARIABLE: Final = "DBJOBQ_LISTEN_DSN"
DEFAULT_SCHEMA: Final = "dbjobq"

_URL: Final = re.compile(r"(?P<scheme>[a-zA-Z][\w.-]*)(?:\+\w+)?:(?=//)")


def named_dsn() -> tuple[str, str | None]:
    """Return the DSN that the environment names, empty for libpq's variables, and the direct one for listening."""
    return next(filter(None, map(os.environ.get, DSN_VARIABLES)), ""), os.environ.get(LISTEN_DSN_VARIABLE) or None


def named_schema(given: str | None) -> str:
    """Return the given schema; for None the schema that the environment names, or the default."""
    return os.environ.get(SCHEMA_VARIABLE) or DEFAULT_SCHEMA if given is None else given


def libpq_form(dsn: str) -> str:
    """Return a DSN as libpq takes it: without the driver that SQLAlchemy's URLs name (`postgresql+psycopg://`).

    Raises:
        ConfigError: The URL is not one of PostgreSQL.
    """
    found = _URL.match(dsn)
    if found is None:
        return dsn
    scheme = found["scheme"]
    if scheme not in {"postgres", "postgresql"}:
        do = "; for SQLite, use SQLAlchemyStorage(url)" if scheme == "sqlite" else ""
        raise ConfigError(f"the DSN is a {scheme}: URL, but must be one of PostgreSQL (postgresql://…){do}")
    return f"postgresql:{dsn[found.end() :]}"
