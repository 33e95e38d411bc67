"""Makes connections to PostgreSQL by one DSN, with the settings that dbjobq needs, whatever role and database have.

The settings (`NEEDED`, `WANTED`) are sent as startup parameters: no round trip, and nothing resets them (`DISCARD ALL`,
`RESET`). A pooler such as PgBouncer refuses startup parameters; behind one, settings go with each transaction, or are
part of a statement, and nothing is prepared.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from inspect import iscoroutine
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Format

from dbjobq.errors import ConfigError, StorageUnavailable
from dbjobq.redact import without_passwords
from dbjobq.storage.postgres.connect.address import libpq_form, named_dsn
from dbjobq.storage.postgres.connect.deadline import cut
from dbjobq.storage.postgres.connect.errors import RefusedForNow, is_refused

__all__ = ["AsyncConnection", "Conninfo", "SyncConnection", "Way", "hang_up", "resolve_conninfo"]

SyncConnection: TypeAlias = psycopg.Connection[Any]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[Any]
Conninfo: TypeAlias = str | Callable[[], str]
"""A DSN; or a function that returns one and is called for each new connection, for passwords that change."""

BOUNDED: Final = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; keepalives do not run while data is unacknowledged
    "application_name": "dbjobq",
}
"""Timeouts and keepalives that libpq leaves unbounded. A DSN's own values win."""

WANTED: Final = {
    "idle_session_timeout": "0",  # a listener has nothing to say for minutes
    "lock_timeout": "0",
    "statement_timeout": "0",  # calls have deadlines, and a slow statement would be as slow the next time
}
"""Settings of every connection that dbjobq makes, whatever role and database have. A DSN's own options win."""

NEEDED: Final = {
    "datestyle": "iso",
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",  # SKIP LOCKED, and a statement that follows a wait, need it
}
"""Settings of every connection that dbjobq makes. These win over a DSN's own options."""

_ONE_BYTE: Final = re.compile(r"(LATIN|ISO_8859_|WIN|KOI8)(\w+)")
"""The names of encodings that Python has, too, with the same letters."""

_NOTHING: Final[Mapping[str, str]] = {}


def resolve_conninfo(conninfo: str | None) -> str:
    """Return a connection string that has bounded timeouts.

    Args:
        conninfo: A DSN or URL; None reads `DBJOBQ_DSN`, `DATABASE_URL`, then libpq's `PG*` variables.

    Raises:
        ConfigError: The DSN cannot be parsed, or its password ends too soon.
    """
    given = libpq_form(named_dsn()[0] if conninfo is None else conninfo)
    if _is_cut_short(given):
        raise ConfigError(
            "the DSN's password ends too soon: in a URL, write the @ and the / that it has as %40 and %2F"
        )
    try:
        known: dict[str, Any] = {**BOUNDED, **conninfo_to_dict(given)}
        return make_conninfo(**known)
    except psycopg.ProgrammingError as error:
        said = re.sub(r'"[^"]*"', '"…"', str(error).strip())  # libpq quotes the part it cannot read: maybe a password
        raise ConfigError(f"the DSN cannot be read: {said}") from None


def _is_cut_short(dsn: str) -> bool:
    """Tell whether a URL's password has an @ or a /: libpq would take the rest for a host, and print it."""
    where, _, path = dsn.partition("://")[2].partition("?")[0].partition("/")
    return where.count("@") > 1 or ("@" not in where and ":" in where and "@" in path)


class Way:
    """Makes connections by one DSN.

    Args:
        conninfo: The DSN, or a function that returns it; None as in `resolve_conninfo`.
        pooled: Whether a pooler is known to be on the way.

    Raises:
        ConfigError: The DSN cannot be parsed.
    """

    def __init__(self, conninfo: Conninfo | None, *, pooled: bool = False) -> None:
        self.given: Conninfo = conninfo if callable(conninfo) else resolve_conninfo(conninfo)
        """The DSN or the function, by which another process makes the same connections."""
        self.conninfo = "" if callable(self.given) else self.given
        """The DSN; of a function, the DSN that it has returned last."""
        self.pooled = pooled
        """Whether a pooler is on the way, as far as is known by now."""
        self.prepare_after = 5
        """How often a statement is sent before psycopg prepares it; behind a pooler none is prepared."""
        self.codec: str | None = None
        """Python's name of the database's encoding; None if it can hold all letters, or is not known yet."""
        self._worked = False
        self._encoding = "UTF8"  # whatever PGCLIENTENCODING, role or database have; a pooler accepts it, too

    def dsn(self) -> str:
        """Return the DSN for a new connection.

        Raises:
            ConfigError: The function has returned something else.
            StorageUnavailable: The function has raised. Perhaps the service that it asks for a password is down.
        """
        if callable(self.given):
            name = getattr(self.given, "__qualname__", repr(self.given))
            try:
                found: Any = self.given()
            except Exception as error:
                said = without_passwords(f"{type(error).__name__}: {error}")
                raise StorageUnavailable(f"conninfo={name} raised {said}") from error
            if not isinstance(found, str):  # callers need not be typed
                if iscoroutine(found):
                    found.close()
                raise ConfigError(f"conninfo={name} returned {type(found).__name__}: must be a plain function of a DSN")
            self.conninfo = resolve_conninfo(found)
        return self.conninfo

    async def adsn(self) -> str:
        """See `dsn`. A function is called in a thread beside the running event loop, which may outlive the loop."""
        if not callable(self.given):
            return self.conninfo
        answer: Future[str] = Future()
        answer.set_running_or_notify_cancel()

        def ask() -> None:
            try:
                answer.set_result(self.dsn())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=ask, name="dbjobq-conninfo", daemon=True).start()
        return await asyncio.wrap_future(answer)

    def kwargs(self, first: Mapping[str, str] = _NOTHING, last: Mapping[str, str] = _NOTHING) -> dict[str, Any]:
        """Return the arguments of `psycopg.connect` beside the DSN.

        Args:
            first: More settings, over which a DSN's own options win.
            last: More settings, which win over all others.
        """
        if self.pooled:
            return {"autocommit": True, "prepare_threshold": None, "client_encoding": self._encoding}
        own = conninfo_to_dict(self.conninfo).get("options") or os.environ.get("PGOPTIONS", "")
        options = f"{_options({**WANTED, **first})} {own} {_options({**NEEDED, **last})}".strip()
        return {
            "autocommit": True,
            "prepare_threshold": self.prepare_after,
            "options": options,
            "client_encoding": self._encoding,
        }

    def connect(self, **more: Any) -> SyncConnection:
        """Return a new connection, in autocommit unless `more` says otherwise.

        Raises:
            ConfigError, StorageUnavailable: As `dsn`.
            psycopg.Error: The connection cannot be made; RefusedForNow where there has been one before.
        """
        dsn = self.dsn()
        try:
            connection = psycopg.connect(dsn, **{**self.kwargs(), **more})
        except psycopg.OperationalError as error:
            if not self._met_a_pooler(error):
                raise self._judged(error) from error.__cause__
            connection = psycopg.connect(dsn, **self._told(more))
        if self._fits(connection):
            return connection
        connection.close()
        return self.connect(**more)

    async def aconnect(
        self, first: Mapping[str, str] = _NOTHING, last: Mapping[str, str] = _NOTHING, **more: Any
    ) -> AsyncConnection:
        """Return a new connection for the running event loop, as `connect` does; `first`, `last`: see `kwargs`."""
        dsn = await self.adsn()
        try:
            connection = await psycopg.AsyncConnection.connect(dsn, **{**self.kwargs(first, last), **more})
        except psycopg.OperationalError as error:
            if not self._met_a_pooler(error):
                raise self._judged(error) from error.__cause__
            connection = await psycopg.AsyncConnection.connect(dsn, **self._told(more))
        if self._fits(connection):
            return connection
        await connection.close()
        return await self.aconnect(first, last, **more)

    def _fits(self, connection: SyncConnection | AsyncConnection) -> bool:
        """Learn the database's encoding from a new connection; tell whether the connection was made in the right one.

        A database in SQL_ASCII holds any bytes, and refuses to send those that are no UTF-8 to a client that asks for
        UTF-8. So that client must ask for SQL_ASCII.
        """
        self._worked = True
        encoding = connection.info.parameter_status("server_encoding") or "UTF8"
        self.codec = None if encoding in {"UTF8", "SQL_ASCII"} else _codec(encoding)
        if encoding == "SQL_ASCII":
            for loader in (_AnyBytes, _AnyBytesBinary):
                for kind in ("text", "varchar", "name"):
                    connection.adapters.register_loader(kind, loader)
        before, self._encoding = self._encoding, "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"
        return before == self._encoding

    def _judged(self, error: psycopg.OperationalError) -> psycopg.OperationalError:
        """Return the error to raise: after an earlier connection, a refusal is taken for something that passes."""
        return RefusedForNow(*error.args) if self._worked and is_refused(error) else error

    def _told(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for a connection once a pooler is known to be there: nothing is prepared on it."""
        told: dict[str, Any] = {**self.kwargs(), **more}
        told["prepare_threshold"] = None
        return told

    def _met_a_pooler(self, error: psycopg.OperationalError) -> bool:
        """Tell whether an unexpected pooler refused a connection for its startup parameters."""
        if self.pooled or "unsupported startup parameter" not in str(error):  # PgBouncer's message
            return False
        self.pooled = True
        return True


async def hang_up(connection: AsyncConnection) -> None:
    """Close a connection without waiting for a server that does not answer."""
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            await connection.close()
    cut(connection)


class _AnyBytes(Loader):
    """Loads text that somebody may have written in another encoding: bytes that are not UTF-8 become escapes."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "backslashreplace")


class _AnyBytesBinary(_AnyBytes):
    format = Format.BINARY


def _codec(encoding: str) -> str:
    """Return Python's name of a server's encoding; ASCII where the two may not agree on every letter."""
    found = _ONE_BYTE.fullmatch(encoding)
    if found is None:
        return "ascii"
    kind, which = found.groups()
    name = {"LATIN": "latin_", "ISO_8859_": "iso8859_", "WIN": "cp", "KOI8": "koi8_"}[kind] + which
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def _options(settings: Mapping[str, str]) -> str:
    return " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
