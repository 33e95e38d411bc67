"""PgQueuer (https://github.com/janbjorge/pgqueuer), on asyncpg, the faster driver by its documentation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import iscoroutinefunction
from typing import Any, ClassVar, Final, LiteralString

from psycopg.conninfo import conninfo_to_dict

from tests.benchmarks.peers import handlers
from tests.benchmarks.peers.system import Queue, Row, chunks

__all__ = ["PgQueuer"]

CHUNK: Final = 1_000
"""Jobs in one call to enqueue: the best of 100, 1,000 and 10,000, if there is a difference."""
BATCH: Final = 250
"""Jobs in one claim: the best of 10, 50, 100, 250 and 500. Its documentation says to raise it for short jobs."""


class PgQueuer(Queue):
    """See `Queue`."""

    name: ClassVar[str] = "PgQueuer"
    package: ClassVar[str] = "pgqueuer"
    settings: ClassVar[str] = (
        f"asyncpg on held connections; lists of {CHUNK:,} to `enqueue`; `pgq autovac`; `run(batch_size={BATCH})`; "
        "`asyncio.to_thread` for `def`"
    )
    left: ClassVar[LiteralString] = "select exists (select from pgqueuer)"
    clear: ClassVar[LiteralString] = "truncate pgqueuer, pgqueuer_log, pgqueuer_statistics"

    def __init__(self, dsn: str, database: str) -> None:
        super().__init__(dsn, database)
        self._runner = asyncio.Runner()
        self._opened: Any = None

    async def _connect(self) -> Any:
        asyncpg: Any = import_module("asyncpg")
        where = conninfo_to_dict(self.dsn)  # it does not read libpq's key=value form
        names = {"host": "host", "port": "port", "user": "user", "password": "password", "dbname": "database"}
        return await asyncpg.connect(**{theirs: where[name] for name, theirs in names.items() if name in where})

    async def _queries(self) -> Any:
        if self._opened is None:
            queries: Any = import_module("pgqueuer.queries")
            self._connection = await self._connect()
            self._opened = queries.Queries.from_asyncpg_connection(self._connection)
        return self._opened

    def create(self) -> None:
        async def install() -> None:
            queries = await self._queries()
            await queries.install()
            await queries.optimize_autovacuum()

        self._runner.run(install())

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        async def enqueue() -> None:
            queries = await self._queries()
            for row in rows:
                await queries.enqueue(handler, json.dumps(row).encode())

        self._runner.run(enqueue())

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        async def enqueue() -> None:
            queries = await self._queries()
            for chunk in chunks(rows, CHUNK):
                payloads = [json.dumps(row).encode() for row in chunk]
                await queries.enqueue([handler] * len(chunk), payloads, [0] * len(chunk))

        self._runner.run(enqueue())

    async def work(self) -> None:
        pgqueuer: Any = import_module("pgqueuer")
        app = pgqueuer.PgQueuer.from_asyncpg_connection(await self._connect())
        for name, handler in handlers.HANDLERS.items():
            app.entrypoint(name, accepts_context=False)(_entrypoint(handler))
        await app.run(batch_size=BATCH)

    def close(self) -> None:
        if self._opened is not None:
            self._runner.run(self._connection.close())
        self._runner.close()


def _entrypoint(handler: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return what takes PgQueuer's job; it takes coroutines only, and leaves threads to asyncio."""

    async def run(job: Any) -> None:
        arguments = json.loads(job.payload)
        if iscoroutinefunction(handler):
            await handler(**arguments)
        else:
            await asyncio.to_thread(handler, **arguments)

    return run
