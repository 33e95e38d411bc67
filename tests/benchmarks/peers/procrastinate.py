"""Procrastinate (https://procrastinate.readthedocs.io), on psycopg."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, ClassVar, Final, LiteralString

from tests.benchmarks.peers import handlers
from tests.benchmarks.peers.system import Queue, Row

__all__ = ["Procrastinate"]

CONCURRENCY: Final = 30
"""The best of 1, 10, 30 and 100."""
POOL: Final = 20
"""Connections of the worker."""


class Procrastinate(Queue):
    """See `Queue`."""

    name: ClassVar[str] = "Procrastinate"
    package: ClassVar[str] = "procrastinate"
    settings: ClassVar[str] = (
        f"`defer` through its pool, one `batch_defer`; `run_worker_async(concurrency={CONCURRENCY})`, a pool of {POOL}"
    )
    share: ClassVar[float] = 0.05
    left: ClassVar[LiteralString] = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
    clear: ClassVar[LiteralString] = "truncate procrastinate_jobs, procrastinate_events cascade"

    def __init__(self, dsn: str, database: str) -> None:
        super().__init__(dsn, database)
        procrastinate: Any = import_module("procrastinate")
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, max_size=POOL))
        self._tasks = {name: self._app.task(name=name)(handler) for name, handler in handlers.HANDLERS.items()}

    def create(self) -> None:
        self._app.open()
        self._app.schema_manager.apply_schema()

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        task = self._tasks[handler]
        for row in rows:
            task.defer(**row)

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        self._tasks[handler].batch_defer(*rows)

    async def work(self) -> None:
        async with self._app.open_async():
            await self._app.run_worker_async(concurrency=CONCURRENCY)

    def close(self) -> None:
        self._app.close()
