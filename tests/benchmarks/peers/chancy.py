"""Chancy (https://tkte.ch/chancy), on psycopg."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, ClassVar, Final, LiteralString

from tests.benchmarks.peers import handlers
from tests.benchmarks.peers.system import Queue, Row

__all__ = ["Chancy"]

CONCURRENCY: Final = 1_000
"""As good as 5,000, and a little better than 100."""
THREADS: Final = 8
"""As good as 32, better than 2."""


class Chancy(Queue):
    """See `Queue`."""

    name: ClassVar[str] = "Chancy"
    package: ClassVar[str] = "chancy"
    settings: ClassVar[str] = (
        "`sync_push` through its pool, `sync_push_many`; "
        f"the async executor, `concurrency={CONCURRENCY}`, for `def` the threaded one, `concurrency={THREADS}`; "
        "`eager_polling`, its default plugins"
    )
    share: ClassVar[float] = 0.5
    left: ClassVar[LiteralString] = "select exists (select from chancy_jobs where state <> 'succeeded')"
    clear: ClassVar[LiteralString] = "truncate chancy_jobs"

    def __init__(self, dsn: str, database: str) -> None:
        super().__init__(dsn, database)
        self._chancy: Any = import_module("chancy")
        self._app: Any = self._chancy.Chancy(dsn, log=logging.getLogger("chancy"))

    def create(self) -> None:
        async def migrate() -> None:
            async with self._chancy.Chancy(self.dsn, log=logging.getLogger("chancy")) as app:
                await app.migrate()
                for name, concurrency, executor in (
                    ("default", CONCURRENCY, app.Executor.Async),
                    ("threads", THREADS, app.Executor.Threaded),
                ):
                    queue = self._chancy.Queue(name, concurrency=concurrency, executor=executor, eager_polling=True)
                    await app.declare(queue, upsert=True)

        asyncio.run(migrate())
        self._app.sync_pool.open()

    def _job(self, handler: str, row: Row) -> Any:
        function = handlers.HANDLERS[handler]
        queue = "default" if iscoroutinefunction(function) else "threads"
        return self._chancy.Job.from_func(function, kwargs=dict(row), queue=queue)

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        for row in rows:
            self._app.sync_push(self._job(handler, row))

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        for _references in self._app.sync_push_many([self._job(handler, row) for row in rows]):
            pass

    async def work(self) -> None:
        async with self._app, self._chancy.Worker(self._app) as worker:
            await worker.wait_for_shutdown()

    def close(self) -> None:
        self._app.sync_pool.close()
