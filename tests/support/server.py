"""The one PostgreSQL server of a test run, its template database, and the databases made from it.

The server is `$DBJOBQ_TEST_DSN`, else a container where Docker answers, else one from local binaries;
`$DBJOBQ_TEST_SERVER` (dsn, docker or embedded) insists on one of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import LiteralString

    Started = tuple[str, Callable[[], None]]  # a DSN, and how to stop what was started

SPEED: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "authentication_timeout": "5s",  # who is left half-way into a login holds up all who make or drop a database
}
DOCKER_SOCKET: Final = "unix:///var/run/docker.sock"
ROOMY_BYTES: Final = 2 << 30


class NoServer(Exception):  # noqa: N818 - an answer, not a fault
    """No source of a PostgreSQL server works; the message lists what was tried."""


def from_dsn() -> Started:
    """The server somebody else runs; its role must be allowed to create databases."""
    return os.environ["DBJOBQ_TEST_DSN"], lambda: None


def from_docker() -> Started:
    """A container of `$POSTGRES_IMAGE`, its data in memory."""
    _ask_docker()
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # read when testcontainers is imported
    os.environ.setdefault("TC_POOLING_INTERVAL", "0.1")
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(os.environ.get("POSTGRES_IMAGE", "postgres:17"), driver=None)
    container.with_command("postgres " + " ".join(f"-c {name}={value}" for name, value in SPEED.items()))
    container.with_env("PGDATA", "/pgdata/data")  # the image's own place for it moved with PostgreSQL 18
    container.with_tmpfs_mount("/pgdata")
    container.start()
    return container.get_connection_url(), container.stop


def from_embedded() -> Started:
    """A server from local binaries; in memory if there is room: a database takes 25 ms there, not 300."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES
    server = EmbeddedPostgres(settings=SPEED, tempdir=memory if roomy else None)
    return server.dsn(), server.stop


def _ask_docker() -> None:
    """Raise OSError at once where no daemon listens: its own client would leak a socket then."""
    address = urlsplit(os.environ.get("DOCKER_HOST") or DOCKER_SOCKET)
    if address.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(address.path)
    elif address.hostname and address.port:
        socket.create_connection((address.hostname, address.port), timeout=2).close()


SOURCES: Final = {"dsn": from_dsn, "docker": from_docker, "embedded": from_embedded}


def wanted() -> list[str]:
    """The sources to try, in this order."""
    if only := os.environ.get("DBJOBQ_TEST_SERVER"):
        return [only]
    return ["dsn"] if "DBJOBQ_TEST_DSN" in os.environ else ["docker", "embedded"]


class Server:
    """The server and its template database; started by `start()` alone, which may be called again."""

    def __init__(self) -> None:
        self.dsn = self.template = self.note = ""
        self._stop: Callable[[], None] = lambda: None

    def start(self, migrate: Callable[[str], object]) -> None:
        """Start the server, make the template database and have it migrated.

        Raises:
            NoServer: nothing that was wanted works.
        """
        if self.template:
            return
        self._connect()
        self.template = f"dbjobq_{uuid.uuid4().hex[:8]}"
        execute(self.dsn, "CREATE DATABASE {}", self.template)
        migrate(make_conninfo(self.dsn, dbname=self.template))

    def _connect(self) -> None:
        problems: list[str] = []
        for name in wanted():
            try:
                self.dsn, self._stop = SOURCES[name]()
            except Exception as error:
                problems.append(f"{name}: {type(error).__name__}: {error}")
            else:
                self.note = f"{name}, {describe(self.dsn)}"
                return
        raise NoServer("no PostgreSQL for the tests:\n" + "\n".join(problems))

    def close(self) -> None:
        """Drop the template database and stop the server."""
        if self.template:
            execute(self.dsn, "DROP DATABASE {} WITH (FORCE)", self.template)
        self._stop()


class Databases:
    """Makes databases from templates, and drops each when a later one is made.

    Its backends are gone by then: a drop right after a connection was closed waits 100 ms for them.
    """

    def __init__(self, dsn: str, template: str) -> None:
        self._dsn, self._template = dsn, template
        self._released: list[str] = []

    @contextlib.contextmanager
    def fresh(self, template: str | None = None) -> Generator[str]:
        """The DSN of a new database, migrated unless another template is named."""
        self.drop_released()
        name = f"dbjobq_test_{uuid.uuid4().hex[:12]}"
        # By files: half the work of doing it by the log, and the template's cache of its catalogue comes along.
        execute(self._dsn, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template or self._template)
        try:
            yield make_conninfo(self._dsn, dbname=name)
        finally:
            self._released.append(name)

    def drop_released(self) -> None:
        """Drop the databases that are no longer in use."""
        while self._released:
            execute(self._dsn, "DROP DATABASE {} WITH (FORCE)", self._released.pop())


def execute(dsn: str, statement: LiteralString, *names: str) -> None:
    """Execute a statement outside a transaction, the identifiers put in."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def describe(dsn: str) -> str:
    """Which server that is, for people."""
    with psycopg.connect(dsn) as conn:
        version = conn.info.parameter_status("server_version")
    return f"PostgreSQL {version} at {conninfo_to_dict(dsn).get('host', 'the default host')}"
