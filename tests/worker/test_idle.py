"""What a worker with nothing to do costs the server."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job, schema
from dbjobq.embedded import EmbeddedPostgres
from tests.support.waiting import ended

pytestmark = pytest.mark.slow
SECONDS = 30.0


@pytest.fixture
def watched() -> Iterator[tuple[str, Path]]:
    """A quiet server that logs every statement: its DSN and its log."""
    settings = {"log_statement": "all", "log_min_duration_statement": "-1", "autovacuum": "off"}
    with EmbeddedPostgres(settings=settings) as server:
        schema.migrate(server.dsn())
        yield server.dsn(), server._address.socket_dir / "log"


def statements(log: Path) -> int:
    return len(re.findall(r"LOG:  (?:statement|execute .*?):", log.read_text(errors="replace")))


@pytest.mark.parametrize("worked", [False, True], ids=["never worked", "has worked"])
def test_an_idle_worker_sends_less_than_a_statement_in_two_seconds_and_writes_no_wal(
    watched: tuple[str, Path], worked: bool
) -> None:
    dsn, log = watched

    @job
    def hello() -> None: ...

    with PostgresStorage(dsn) as storage, psycopg.connect(dsn, autocommit=True) as connection:

        def wal() -> str:
            row = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            assert row
            return str(row[0])

        def written(since: str) -> int:
            row = connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)", (since,))
            found = row.fetchone()
            assert found
            return int(found[0])

        queue = JobQueue(storage)
        with Worker(queue):
            if worked:
                ended(queue, [queue.enqueue(hello) for _ in range(50)])
            time.sleep(16.0)  # until it polls as seldom as it ever does
            before, since = statements(log), wal()
            time.sleep(SECONDS)
            sent = statements(log) - before - 1  # our own
            assert written(since) < 1000
            assert sent / SECONDS < 0.5, f"{sent} statements in {SECONDS} s"
