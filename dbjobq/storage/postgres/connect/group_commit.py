"""Group commit: the calls of one event loop share a connection, and those that come while it is busy a transaction.

So a hundred tasks that enqueue at once need not have a connection and a flush to disk each. The first statement is sent
at once; those that come before its answer are sent after it in one pipeline, which is one transaction, and so on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from dbjobq.storage.postgres.connect.deadline import Deadline, cut_at
from dbjobq.storage.postgres.connect.errors import forget_prepared, is_lost
from dbjobq.storage.postgres.connect.pool import AsyncPool

__all__ = ["GroupCommit"]

LARGEST_GROUP: Final = 100
"""Statements in one pipeline at most: all of them wait for the last."""


class _Asked(NamedTuple):
    statement: bytes
    params: Mapping[str, Any]
    deadline: Deadline
    answer: asyncio.Future[list[tuple[Any, ...]]]
    """The future of the caller; done early if the caller was cancelled."""

    def give(self, rows: list[tuple[Any, ...]]) -> None:
        if not self.answer.done():
            self.answer.set_result(rows)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class GroupCommit:
    """Executes statements that are a transaction each, wait for no lock, and return rows.

    Args:
        pool: The event loop's pool, in autocommit. One connection is held while there is something to send.
    """

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._asked: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    async def execute(self, statement: bytes, params: Mapping[str, Any], deadline: Deadline) -> list[tuple[Any, ...]]:
        """Return a statement's rows, once they are committed. Raises what psycopg and its pool raise.

        Statements that go out together are cut at the first one's deadline; a caller with time left may try again.
        """
        asked = _Asked(statement, params, deadline, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="dbjobq-group-commit")
        return await asked.answer

    async def _work(self) -> None:
        batch: list[_Asked] = []
        try:
            async with self._pool.connection(self._asked[0].deadline.left) as connection:
                while batch := self._next():
                    with cut_at(connection, batch[0].deadline):
                        await _send(connection, batch)
        except asyncio.CancelledError:  # somebody has cancelled all tasks; waiting callers try again, elsewhere
            for asked in batch:
                asked.fail(psycopg.OperationalError("the task that sent this was cancelled"))
            raise
        except Exception as error:  # the waiting callers get it, whatever it is
            came, self._asked = self._asked, deque()
            for asked in (*batch, *came):
                if isinstance(error, PoolTimeout) and asked.deadline.left:  # it may still get a connection
                    self._asked.append(asked)
                else:
                    asked.fail(error)
        finally:  # a call may have come while the connection was returned, or the task was cancelled
            waits = any(not asked.answer.done() for asked in self._asked)
            self._task = asyncio.create_task(self._work(), name="dbjobq-group-commit") if waits else None

    def _next(self) -> list[_Asked]:
        """Take the statements to send next, without those whose callers have gone."""
        batch: list[_Asked] = []
        while self._asked and len(batch) < LARGEST_GROUP:
            asked = self._asked.popleft()
            if not asked.answer.done():
                batch.append(asked)
        return batch


async def _send(connection: psycopg.AsyncConnection[Any], batch: list[_Asked]) -> None:
    """Send statements and hand out their answers. Raises the error that ended the connection."""
    cursors = [connection.cursor(row_factory=tuple_row) for _ in batch]
    try:
        async with connection.pipeline():
            for asked, cursor in zip(batch, cursors, strict=True):
                await cursor.execute(asked.statement, asked.params)
    except psycopg.Error as error:
        if is_lost(error):
            raise
        if len(batch) == 1:
            batch[0].fail(error)
            return
        await forget_prepared(connection)
        for asked in batch:  # one failed, so all were rolled back: send each by itself
            await _send(connection, [asked])
        return
    for asked, cursor in zip(batch, cursors, strict=True):
        asked.give(await cursor.fetchall())
