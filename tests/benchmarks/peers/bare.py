"""The yardstick of `dbjobq bench`: one table, and a loop that claims and deletes, in the process that measures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, LiteralString

import psycopg

from dbjobq.bench.bare import Bare as BareTable
from tests.benchmarks.peers.system import Row, System

__all__ = ["Bare"]


class Bare(System):
    """See `System`. It has no worker: `drain` is the whole of it."""

    name: ClassVar[str] = "bare SQL"
    package: ClassVar[str] = "psycopg"
    settings: ClassVar[str] = (
        "INSERT on a held connection, COPY by `write_row`; marks 500 rows, then deletes them, in two transactions"
    )
    left: ClassVar[LiteralString] = "select exists (select from public.bare)"
    clear: ClassVar[LiteralString] = "truncate public.bare"

    def create(self) -> None:
        self._connection = psycopg.connect(self.dsn, autocommit=True)
        self._table = BareTable(self._connection, "public")

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        self._table.insert(rows)

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        self._table.copy(rows)

    def drain(self) -> None:
        """Work off all rows."""
        self._table.claim_and_delete()

    def close(self) -> None:
        self._connection.close()
