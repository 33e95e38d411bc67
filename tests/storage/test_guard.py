"""The guard leaves a connection alone that is between two statements when it looks, and gives up one that stays so.

That it ends those over which no answer will come is tried with workers, in tests/worker/test_silence.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

from dbjobq.storage.postgres.connect import watchdog
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.connect.way import AsyncConnection
from dbjobq.storage.postgres.statements import Statements
from tests.storage.database import Database
from tests.support.waiting import until

THERE = "select pid from pg_stat_activity where pid = %s"
STATE = "select state from pg_stat_activity where pid = %s"
SETTINGS: dict[str, Any] = {"listen_conninfo": None, "schema": "dbjobq", "timeout": 10.0, "max_size": 1}


class Looks(Connections):
    """Connections of a guard whose second look waits until it may; that and the third tell that they have come."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, **SETTINGS)
        self.second, self.may, self.third = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._number = 0

    async def async_connect(self, **kwargs: Any) -> AsyncConnection:
        self._number += 1
        if self._number == 2:
            self.second.set()
            await self.may.wait()
        elif self._number == 3:
            self.third.set()
        return await super().async_connect(**kwargs)


@asynccontextmanager
async def on_guard(connections: Connections) -> AsyncGenerator[Watchdog]:
    """A guard that looks, for 20 seconds at most."""
    watch = Watchdog(connections, Statements("dbjobq"))
    looking = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(20):
            yield watch
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


def test_a_connection_is_left_alone_that_only_one_look_finds_idle(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "ANSWER_PATIENCE", 0.2)

    async def main() -> None:
        looks = Looks(dsn)
        async with on_guard(looks) as watch, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            with watch.waiting(connection):
                await looks.second.wait()
                statement = asyncio.create_task(connection.execute("select pg_sleep(2)"))
                pid = connection.info.backend_pid
                await asyncio.to_thread(until, lambda: database.value(STATE, pid) == "active", what="its work")
                looks.may.set()
                await looks.third.wait()
                await statement

    asyncio.run(main())


def test_a_connection_is_given_up_of_whose_exchange_the_server_has_not_got_the_rest(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server calls it active; but what was sent after that went nowhere."""
    monkeypatch.setattr(watchdog, "ANSWER_PATIENCE", 0.2)

    async def main() -> None:
        connections = Connections(dsn, **SETTINGS)
        async with on_guard(connections) as watch:
            connection = await connections.async_connect()
            pid = connection.info.backend_pid
            with suppress(psycopg.OperationalError):  # of the pipeline's end
                async with connection.pipeline():
                    await connection.execute("select 1")
                    with watch.waiting(connection):
                        await asyncio.to_thread(until, lambda: not database.rows(THERE, pid), what="its end")
            await connection.close()

    asyncio.run(main())
