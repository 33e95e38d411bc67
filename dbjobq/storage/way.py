"""The way to PostgreSQL by one DSN: what our own connections say they need, whatever the defaults of role and database.

`NEEDED` is the one table of settings. They are sent as startup parameters: no round trip, and nothing resets them
(`DISCARD ALL`, `RESET`). A pooler such as PgBouncer refuses startup parameters; behind one, settings go with each
transaction, or are part of a statement, and nothing is prepared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq.errors import ConfigError

__all__ = ["AsyncConnection", "SyncConnection", "Way", "resolve_conninfo"]

SyncConnection: TypeAlias = psycopg.Connection[Any]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[Any]

BOUNDED: Final = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; keepalives do not run while data is unacknowledged
    "application_name": "dbjobq",
}
"""What libpq leaves unbounded. A DSN's own values win."""

NEEDED: Final = {
    "default_transaction_isolation": "read committed",  # SKIP LOCKED, and a statement that follows a wait, need it
}
"""What every connection of our own sets for itself. These win over a DSN's own options."""

_NOTHING: Final[Mapping[str, str]] = {}


def resolve_conninfo(conninfo: str | None) -> str:
    """Return a connection string that has bounded timeouts.

    Args:
        conninfo: A DSN or URL; None reads `DBJOBQ_DSN`, then libpq's `PG*` variables (contract §7).

    Raises:
        ConfigError: It cannot be parsed, or what is its password ends too soon.
    """
    given = os.environ.get("DBJOBQ_DSN", "") if conninfo is None else conninfo
    if _is_cut_short(given):
        raise ConfigError(
            "the DSN's password ends too soon: in a URL, write the @ and the / that it has as %40 and %2F"
        )
    try:
        known: dict[str, Any] = {**BOUNDED, **conninfo_to_dict(given)}
        return make_conninfo(**known)
    except psycopg.ProgrammingError as error:
        said = re.sub(r'"[^"]*"', '"…"', str(error).strip())  # libpq quotes what it cannot read: perhaps a password
        raise ConfigError(f"the DSN cannot be read: {said}") from None


def _is_cut_short(dsn: str) -> bool:
    """Tell whether a URL has an @ or a / in its password, of which libpq would take the rest for a host, and say it."""
    where, _, path = dsn.partition("://")[2].partition("?")[0].partition("/")
    return where.count("@") > 1 or ("@" not in where and ":" in where and "@" in path)


class Way:
    """Makes connections by one DSN.

    Args:
        conninfo: The DSN; None as in `resolve_conninfo`.
        pooled: A pooler is known to be there.

    Raises:
        ConfigError: The DSN cannot be parsed.
    """

    def __init__(self, conninfo: str | None, *, pooled: bool = False) -> None:
        self.conninfo = resolve_conninfo(conninfo)
        self.pooled = pooled
        """Whether a pooler is on the way, as far as is known by now."""
        self.prepare_after = 5
        """How often a statement is sent before psycopg prepares it; where there is a pooler none is."""

    def kwargs(self, first: Mapping[str, str] = _NOTHING, last: Mapping[str, str] = _NOTHING) -> dict[str, Any]:
        """Return what `psycopg.connect` is given beside the DSN.

        Args:
            first: More settings, over which a DSN's own options win.
            last: More settings, which win over all others.
        """
        if self.pooled:
            return {"autocommit": True, "prepare_threshold": None}
        own = conninfo_to_dict(self.conninfo).get("options") or os.environ.get("PGOPTIONS", "")
        options = f"{_options(first)} {own} {_options({**NEEDED, **last})}".strip()
        return {"autocommit": True, "prepare_threshold": self.prepare_after, "options": options}

    def connect(self, **more: Any) -> SyncConnection:
        """Return a new connection, in autocommit unless `more` says otherwise."""
        try:
            return psycopg.connect(self.conninfo, **{**self.kwargs(), **more})
        except psycopg.OperationalError as error:
            if not self._met_a_pooler(error):
                raise
        return psycopg.connect(self.conninfo, **{**more, **self.kwargs()})

    async def aconnect(
        self, first: Mapping[str, str] = _NOTHING, last: Mapping[str, str] = _NOTHING, **more: Any
    ) -> AsyncConnection:
        """Return a new connection for the running event loop; `first`, `last`: see `kwargs`."""
        try:
            return await psycopg.AsyncConnection.connect(self.conninfo, **{**self.kwargs(first, last), **more})
        except psycopg.OperationalError as error:
            if not self._met_a_pooler(error):
                raise
        return await psycopg.AsyncConnection.connect(self.conninfo, **{**more, **self.kwargs()})

    def _met_a_pooler(self, error: psycopg.OperationalError) -> bool:
        """Tell whether a connection was refused by a pooler that nobody told of, for what it was to say."""
        if self.pooled or "unsupported startup parameter" not in str(error):  # PgBouncer's words
            return False
        self.pooled = True
        return True


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
