"""An exchange of which the end is never sent: its worker was paused, or its machine is gone. Others get its jobs."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import JobQueue, PostgresStorage, StorageUnavailable
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from dbjobq.storage import session as session_module
from dbjobq.storage.session import HAS_TRANSACTION_TIMEOUT, PostgresSession
from tests.storage.workers import claim, ended, exchange, run, worker
from tests.support.faultproxy import drop_packets

if TYPE_CHECKING:
    from tests.storage.database import Database

TTL = 1.0


@asynccontextmanager
async def half_sent(storage: PostgresStorage) -> AsyncGenerator[PostgresSession]:
    """A worker that has completed one of its two jobs, and claimed all there is, but not sent the transaction's end."""
    session = storage.session("paused", None, TTL)
    await session.open()
    held = (await session.step([], 2, beat=TTL, promote=False, progress={}, rush=False)).claims
    connection, number = session._opened()
    with suppress(psycopg.OperationalError):  # the end can be sent no more
        async with connection.pipeline():
            finished = {"ids": f"{{{held[0].id}}}", "claims": f"{{{held[0].claim}}}"}
            await connection.execute(storage.statements["finish_completed"], finished)
            wanted = {
                "queues": f"{{{session._served[0]}}}",
                "limit": 100,
                "lease": None,
                "worker": number,
                "beat": None,
            }
            await connection.execute(storage.statements["claim"], wanted)
            yield session
    await session.close()


async def others_get(storage: PostgresStorage, jobs: int, seconds: float) -> None:
    """Wait until another worker has claimed, or rescued, so many."""
    async with worker(storage, "other") as other, asyncio.timeout(seconds):
        pulse = other.pulse()
        assert await claim(other) == []
        got = 0
        while got < jobs:
            await asyncio.to_thread(pulse.rescue)
            claims = await claim(other, 100)
            await exchange(other, [ended(c) for c in claims])
            got += len(claims)
            await asyncio.sleep(0.1)
        await asyncio.to_thread(pulse.close)


def test_jobs_of_a_worker_that_is_paused_within_an_exchange_come_back_and_it_goes_on(
    storage: PostgresStorage, queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.value("select current_setting('server_version_num')::int") < HAS_TRANSACTION_TIMEOUT:
        pytest.skip("PostgreSQL has transaction_timeout from 17 on")
    monkeypatch.setattr(session_module, "LONGEST", TTL)
    queue.enqueue_many("f", ({} for _ in range(10)))

    async def main() -> None:
        async with half_sent(storage) as session:
            await others_get(storage, 10, 30)
            with pytest.raises(StorageUnavailable):
                await exchange(session, want=1)
            await session.close()
            await session.open()
            queue.enqueue("f")
            assert len(await claim(session)) == 1

    run(main())
    assert queue.count("completed") == 10


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("iptables") is None, reason="needs root and iptables")
def test_jobs_of_a_worker_whose_machine_is_gone_within_an_exchange_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server's keepalives alone; they take 25 seconds."""
    monkeypatch.setattr(session_module, "LONGEST", 3600.0)
    with EmbeddedPostgres(tcp=True) as server:
        migrate(server.dsn())
        with PostgresStorage(server.dsn(tcp=True)) as far, PostgresStorage(server.dsn()) as near:
            queue = JobQueue(near)
            queue.enqueue_many("f", ({} for _ in range(10)))

            async def main() -> None:
                async with half_sent(far):
                    with drop_packets(int(str(conninfo_to_dict(server.dsn(tcp=True))["port"]))):
                        await others_get(near, 10, 50)

            run(main())
            assert queue.count("completed") == 10
