"""dbjobq itself, through its pool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Final, LiteralString

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.schema import migrate
from tests.benchmarks.peers import handlers
from tests.benchmarks.peers.system import Queue, Row

__all__ = ["Ours"]

TYPES: Final = {name: job(name=f"compare.{name}")(function) for name, function in handlers.HANDLERS.items()}


class Ours(Queue):
    """See `Queue`."""

    name: ClassVar[str] = "dbjobq"
    package: ClassVar[str] = "dbjobq"
    settings: ClassVar[str] = "`enqueue` through the pool, `enqueue_many`; `Worker(concurrency=100)`"
    left: ClassVar[LiteralString] = "select exists (select from dbjobq.ready) or exists (select from dbjobq.lease)"
    clear: ClassVar[LiteralString] = (
        "truncate dbjobq.job, dbjobq.ready, dbjobq.scheduled, dbjobq.lease, dbjobq.done, dbjobq.failure"
    )

    def __init__(self, dsn: str, database: str) -> None:
        super().__init__(dsn, database)
        self._queue = JobQueue(PostgresStorage(dsn))

    def create(self) -> None:
        migrate(self.dsn)

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        function = TYPES[handler]
        for row in rows:
            self._queue.enqueue(function, **row)

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        self._queue.enqueue_many(TYPES[handler], rows)

    async def work(self) -> None:
        with Worker(self._queue, concurrency=100):
            await asyncio.Event().wait()

    def close(self) -> None:
        self._queue.storage.close()
