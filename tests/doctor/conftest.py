"""A server with nothing to be mended, for tests that make something be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from tests.storage.database import Database, database
from tests.support.server import ROOMY_BYTES, Databases, execute

__all__ = ["database"]

SOUND: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum_naptime": "1h",  # no test is to be mended before it is judged
    "idle_in_transaction_session_timeout": "10min",
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "max_connections": "40",
    "max_prepared_transactions": "2",
    "wal_level": "logical",
}


@pytest.fixture(scope="session")
def sound() -> Iterator[Databases]:
    """Databases on such a server."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOMY_BYTES
    with EmbeddedPostgres(settings=SOUND, tempdir=memory if roomy else None) as server:
        execute(server.dsn(), "CREATE DATABASE {}", "template")
        migrate(make_conninfo(server.dsn(), dbname="template"))
        yield Databases(server.dsn(), "template")


@pytest.fixture
def dsn(sound: Databases) -> Iterator[str]:
    """The DSN of a new database there, migrated."""
    with sound.fresh() as dsn:
        yield dsn


@pytest.fixture
def storage(dsn: str) -> Iterator[PostgresStorage]:
    """A storage on it."""
    with PostgresStorage(dsn) as storage:
        yield storage


@pytest.fixture
def queue(storage: PostgresStorage) -> JobQueue:
    """A queue on it."""
    return JobQueue(storage)


@pytest.fixture
def other(dsn: str) -> Iterator[Database]:
    """A second session."""
    with Database(dsn) as other:
        yield other
