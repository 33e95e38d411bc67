"""A test's own look into its PostgreSQL."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import LiteralString


class Database:
    """One connection, in autocommit.

    Args:
        dsn: The test's database.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = psycopg.connect(dsn, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def rows(self, statement: LiteralString, *params: object) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows, if it has any."""
        cursor = self.connection.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, statement: LiteralString, *params: object) -> Any:
        """Return the first column of the first row."""
        return self.rows(statement, *params)[0][0]

    @contextmanager
    def notified(self, channel: str = "dbjobq") -> Generator[list[str]]:
        """Collect the payloads that are notified while the block runs; complete at its end."""
        heard: list[str] = []
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            yield heard
            connection.execute(sql.SQL("notify {}, 'end'").format(sql.Identifier(channel)))
            for notice in connection.notifies(timeout=60):
                if notice.payload == "end":
                    return
                heard.append(notice.payload)
        raise AssertionError("a notification of one's own did not come back within 60 s")


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """A look into the test's database."""
    with Database(dsn) as database:
        yield database
