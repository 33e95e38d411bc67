"""What work costs a server, without a clock: WAL bytes, statements, transactions, rows left behind.

The server is the test's own (`metered`): WAL is written, and read off, for all databases of a server together.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from dbjobq import schema
from dbjobq.embedded import EmbeddedPostgres
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

DATABASE: Final = "jobs"
QUIET: Final = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "full_page_writes": "off",
    "log_statement": "all",
    "max_wal_size": "16GB",
    "shared_buffers": "512MB",
}
"""Nothing happens by itself, and no page is written to WAL whole because a checkpoint came before: figures repeat."""


class Rows(NamedTuple):
    """What was done to a table since it was made."""

    inserted: int
    updated: int
    deleted: int
    dead: int


class Cost(NamedTuple):
    """What a block cost."""

    wal: int
    """Bytes."""
    statements: int
    transactions: int


class Meter:
    """Reads a server's meters, from another database than the one that is measured.

    Args:
        server: The server.
    """

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.dsn = server.dsn(DATABASE)
        self._server_pid = server._address.pid
        self._log: Path = server._address.socket_dir / "log"
        self._probe = psycopg.connect(server.dsn(), autocommit=True, client_encoding="utf8")
        self._probe.execute("set log_statement = none")

    def close(self) -> None:
        self._probe.close()

    def value(self, query: str) -> int:
        row = self._probe.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def wal(self) -> int:
        """The bytes of WAL so far."""
        return self.value("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")

    def statements(self) -> list[str]:
        """The statements so far, by their first line."""
        said = self._log.read_text(errors="replace")
        return re.findall(r"LOG:  (?:statement|execute .*?): +(.*)", said)

    def transactions(self) -> int:
        """The transactions so far. A connection's are counted when it ends: waits until none is left."""
        gone = f"select count(*) from pg_stat_activity where datname = '{DATABASE}'"
        until(lambda: self.value(gone) == 0, what="the end of all connections")
        return self.value(f"select xact_commit + xact_rollback from pg_stat_database where datname = '{DATABASE}'")

    def cpu(self) -> float:
        """The seconds of processor time so far of the server's processes that still run (Linux)."""
        nanoseconds = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if str(self._server_pid) in {parent, process.name}:
                    nanoseconds += int((process / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    @contextmanager
    def measured(self) -> Generator[list[Cost]]:
        """Put what the block cost into the list, once its connections are closed."""
        cost: list[Cost] = []
        transactions, statements, wal = self.transactions(), len(self.statements()), self.wal()
        yield cost
        after = self.transactions() - transactions
        cost.append(Cost(self.wal() - wal, len(self.statements()) - statements, after))

    def rows(self) -> dict[str, Rows]:
        """What was done to each table, once all connections are closed."""
        self.transactions()
        with psycopg.connect(self.dsn) as connection:
            found = connection.execute(
                "select relname, n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup from pg_stat_user_tables "
                "where schemaname = 'dbjobq'"
            )
            return {name: Rows(*counts) for name, *counts in found}


@contextmanager
def metered(**settings: str) -> Generator[Meter]:
    """A quiet server of one's own with an empty, migrated database, and its meter."""
    with EmbeddedPostgres(settings=QUIET | settings) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f"create database {DATABASE}".encode())
        schema.migrate(server.dsn(DATABASE))
        meter = Meter(server)
        try:
            yield meter
        finally:
            meter.close()


def each(count: int) -> Iterator[dict[str, Any]]:
    """The arguments of so many jobs, 100 bytes of JSON each."""
    return ({"number": number + 1_000_000, "padding": "x" * 69} for number in range(count))
