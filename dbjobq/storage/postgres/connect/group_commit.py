"""A connection that the calls of one event loop share: what comes while it is busy goes out together.

A hundred tasks that enqueue at once need not have a connection and a flush to disk each. The first statement is sent
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

from dbjobq.storage.postgres.connect.deadline import Deadline, watched
from dbjobq.storage.postgres.connect.errors import forget_prepared, is_lost
from dbjobq.storage.postgres.connect.pool import AsyncPool

__all__ = ["Lane"]

MOST: Final = 100
"""Statements in one pipeline: all of them wait for the last."""


class _Asked(NamedTuple):
    statement: bytes
    params: Mapping[str, Any]
    deadline: Deadline
    answer: asyncio.Future[list[tuple[Any, ...]]]
    """Done early if whoever asked was cancelled."""

    def give(self, rows: list[tuple[Any, ...]]) -> None:
        if not self.answer.done():
            self.answer.set_result(rows)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Lane:
    """Executes statements that are a transaction each, wait for no lock, and return rows.

    Args:
        pool: The event loop's, in autocommit: the lane holds one of its connections while there is something to send.
    """

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._asked: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    async def execute(self, statement: bytes, params: Mapping[str, Any], deadline: Deadline) -> list[tuple[Any, ...]]:
        """Return a statement's rows, once they are committed. Raises what psycopg and its pool raise.

        What goes out together is cut at the first one's deadline; whoever has time left may ask again.
        """
        asked = _Asked(statement, params, deadline, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="dbjobq-lane")
        return await asked.answer

    async def _work(self) -> None:
        batch: list[_Asked] = []
        try:
            async with self._pool.connection(self._asked[0].deadline.left) as connection:
                while batch := self._next():
                    with watched(connection, batch[0].deadline):
                        await _send(connection, batch)
        except asyncio.CancelledError:  # by somebody who cancels all tasks: those who wait ask again, elsewhere
            for asked in batch:
                asked.fail(psycopg.OperationalError("the task that sent this was cancelled"))
            raise
        except Exception as error:  # it is for those who wait, whatever it is
            came, self._asked = self._asked, deque()
            for asked in (*batch, *came):
                if isinstance(error, PoolTimeout) and asked.deadline.left:  # whose turn for a connection comes
                    self._asked.append(asked)
                else:
                    asked.fail(error)
        finally:  # somebody may have come while the connection was given back, or the task was cancelled
            waits = any(not asked.answer.done() for asked in self._asked)
            self._task = asyncio.create_task(self._work(), name="dbjobq-lane") if waits else None

    def _next(self) -> list[_Asked]:
        """Take what is to be sent, but for what nobody waits for any more."""
        batch: list[_Asked] = []
        while self._asked and len(batch) < MOST:
            asked = self._asked.popleft()
            if not asked.answer.done():
                batch.append(asked)
        return batch


async def _send(connection: psycopg.AsyncConnection[Any], batch: list[_Asked]) -> None:
    """Send statements and give their answers. Raises what ended the connection."""
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
        for asked in batch:  # one failed, so all were rolled back: each for itself
            await _send(connection, [asked])
        return
    for asked, cursor in zip(batch, cursors, strict=True):
        asked.give(await cursor.fetchall())
