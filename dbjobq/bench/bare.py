"""The yardstick: one table, one index, and the least SQL that could be called a queue.

The yardstick keeps no history, has no leases, no retries and no fences, wakes nobody and calls no function. The cost of
a queue beyond it is the price of all that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

__all__ = ["Bare"]

_TABLE: Final = """
create table {schema}.bare (
    id bigint generated always as identity primary key, queue int, priority int, taken bool not null default false,
    data json
)
"""
_INDEX: Final = "create index on {schema}.bare (queue, priority desc, id)"
_INSERT: Final = "insert into {schema}.bare (queue, priority, data) values (1, 5, %s)"
_COPY: Final = "copy {schema}.bare (queue, priority, data) from stdin"
_DUE: Final = """
    select id from {schema}.bare
     where queue = 1 and not taken order by priority desc, id limit 500 for update skip locked
"""
_CLAIM: Final = f"update {{schema}}.bare set taken = true where id = any (array ({_DUE})) returning id, data"
_DELETE: Final = "delete from {schema}.bare where id = any (%s)"
_POP: Final = f"delete from {{schema}}.bare where id = any (array ({_DUE})) returning id, data"


class Bare:
    """A table of its own in the benchmark's schema.

    Args:
        connection: A connection in autocommit.
        schema: The schema in which the table is made.
    """

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection, self._schema = connection, sql.Identifier(schema)
        for statement in (_TABLE, _INDEX):
            connection.execute(self._sql(statement))
        self._insert, self._copy = map(self._sql, (_INSERT, _COPY))
        self._claim, self._delete, self._pop = map(self._sql, (_CLAIM, _DELETE, _POP))

    def _sql(self, text: str) -> bytes:
        return text.format(schema=self._schema.as_string(self._connection)).encode()

    def insert(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Insert rows one by one, each durable before the next."""
        for row in rows:
            self._connection.execute(self._insert, (json.dumps(row),))

    def copy(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Insert rows by one COPY, written row by row."""
        with self._connection.cursor().copy(self._copy) as copy:
            for row in rows:
                copy.write_row((1, 5, json.dumps(row)))

    def claim_and_delete(self) -> None:
        """Mark 500 rows, then delete them in a second transaction, until there are none.

        Less would not run every job at least once: marked rows are still there if their worker dies.
        """
        while rows := self._connection.execute(self._claim).fetchall():
            self._connection.execute(self._delete, ([number for number, _ in rows],))

    def pop(self) -> None:
        """Delete 500 rows at a time until there are none: a worker that dies has lost those that it deleted."""
        while self._connection.execute(self._pop).fetchall():
            pass

    def clear(self) -> None:
        """Delete all rows."""
        self._connection.execute(self._sql("truncate {schema}.bare"))
