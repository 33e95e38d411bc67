"""A server, named or private, and a schema for one run on it; both are left as they were found."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

from dbjobq import schema
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.way import Way

__all__ = ["a_server", "described", "ignore_signals", "own_schema", "signals_restored"]

SERVER_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


@contextmanager
def a_server(dsn: str, settings: Mapping[str, str] | None = None) -> Generator[tuple[str, bool]]:
    """Lend a server's DSN, and say whether the server was started for it.

    Args:
        dsn: The server to use; empty for libpq's variables, and where they are not set, for a private server.
        settings: Settings of a private server.
    """
    if dsn or any(map(os.environ.get, SERVER_VARIABLES)):
        yield dsn, False
        return
    from dbjobq.embedded.server import EmbeddedPostgres

    with EmbeddedPostgres(settings=settings) as server:
        yield server.dsn(), True


@contextmanager
def own_schema(dsn: str, prefix: str) -> Generator[str]:
    """Make a schema with dbjobq's tables, lend its name, and drop it."""
    name = f"{prefix}_{secrets.token_hex(4)}"
    schema.migrate(dsn, name)
    try:
        yield name
    finally:
        with translated(name), Way(dsn).connect(autocommit=False) as connection:
            connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))


@contextmanager
def signals_restored() -> Generator[None]:
    """Undo `ignore_signals` at the end of the block."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore signals from here on, so that none interrupts the clearing away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def described(connection: psycopg.Connection[object], *, own: bool) -> str:
    """Return which server it is, for people."""
    version = connection.info.parameter_status("server_version")
    where = f"{connection.info.dbname} at {connection.info.host or 'local'}"
    return f"PostgreSQL {version}, " + ("started for this run" if own else where)
