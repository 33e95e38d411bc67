"""An exchange of which the end is never sent: its worker was paused, or its machine is gone. Others get its jobs."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import JobQueue, PostgresStorage, StorageUnavailable
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from dbjobq.storage.postgres.worker import link as link_module
from dbjobq.storage.postgres.worker.link import HAS_TRANSACTION_TIMEOUT
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.values import Exchange
from tests.storage.workers import claim, ended, exchange, rescue, run, worker
from tests.support.faultproxy import drop_packets, proxied
from tests.support.waiting import until

if TYPE_CHECKING:
    from dbjobq.storage.values import Claim
    from tests.storage.database import Database

TTL = 1.0


@pytest.fixture
def bounded(database: Database) -> None:
    """For servers that can bound a transaction."""
    if database.value("select current_setting('server_version_num')::int") < HAS_TRANSACTION_TIMEOUT:
        pytest.skip("PostgreSQL has transaction_timeout from 17 on")


@asynccontextmanager
async def half_sent(storage: PostgresStorage) -> AsyncGenerator[tuple[PostgresSession, list[Claim]]]:
    """A worker that has completed one of its two jobs, and claimed all there is, but not sent the transaction's end."""
    session = storage.session("paused", None, TTL)
    await session.open()
    held = (await session.step(Exchange(want=2, beat=TTL))).claims
    link = session._link
    assert link is not None
    pipeline = AsyncExitStack()
    await pipeline.enter_async_context(link.pipeline(durable=False))
    finished = {"ids": f"{{{held[0].id}}}", "claims": f"{{{held[0].claim}}}"}
    await link.connection.execute(storage.statements["finish_completed"], finished)
    wanted = {**session._queues.params, **link.who, "limit": 100, "lease": None, "beat": None}
    await link.connection.execute(storage.statements["claim"], wanted)
    try:
        yield session, held
    finally:
        with suppress(psycopg.OperationalError):  # it can be sent no more
            await pipeline.aclose()
        await session.close()


async def others_get(storage: PostgresStorage, jobs: int, seconds: float) -> None:
    """Wait until another worker has claimed, or rescued, so many."""
    async with worker(storage, "other") as other, asyncio.timeout(seconds):
        assert await claim(other) == []
        got = 0
        while got < jobs:
            await asyncio.to_thread(rescue, storage)
            claims = await claim(other, 100)
            await exchange(other, [ended(c) for c in claims])
            got += len(claims)
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("way", ["direct", "as behind a pooler"])
def test_jobs_of_a_worker_that_is_paused_within_an_exchange_come_back_and_it_goes_on(
    dsn: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "AT_LEAST", 3.0)
    with PostgresStorage(dsn, listen_conninfo=None if way == "direct" else dsn) as storage:
        queue = JobQueue(storage)
        queue.enqueue_many("f", ({} for _ in range(10)))

        async def main() -> None:
            async with half_sent(storage) as (session, _):
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
    """By what the worker has the server ask its kernel for, alone; that takes 35 seconds."""
    monkeypatch.setattr(link_module, "AT_LEAST", 3600.0)
    with EmbeddedPostgres(tcp=True) as server:
        migrate(server.dsn())
        port = int(str(conninfo_to_dict(server.dsn(tcp=True))["port"]))
        with PostgresStorage(server.dsn(tcp=True)) as far, PostgresStorage(server.dsn()) as near:
            queue = JobQueue(near)
            queue.enqueue_many("f", ({} for _ in range(10)))

            async def main() -> None:
                async with half_sent(far):
                    with drop_packets(port):
                        await others_get(near, 10, 50)

            run(main())
            assert queue.count("completed") == 10


@pytest.mark.usefixtures("bounded")
def test_an_exchange_that_is_merely_slow_is_given_more_time_until_it_has_enough(
    dsn: str, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not str(conninfo_to_dict(dsn)["host"]).startswith("/"):
        pytest.skip("over TCP the kernel may hold all of it")
    monkeypatch.setattr(link_module, "AT_LEAST", 0.5)
    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        queue.enqueue_many("f", ({"text": "x" * 1_000_000} for _ in range(4)))
        proxy.delay(0.03)

        async def main() -> None:
            session = storage.session("w1", None, 0.5)
            failures = 0
            claims: list[Claim] = []
            while not claims:
                try:
                    await session.open()  # which may be too slow, too
                    await session.release()  # as after each claim of which not all was heard
                    claims = await claim(session, 4)
                except StorageUnavailable:
                    failures += 1
                    await session.close()
            assert failures >= 1
            assert len(claims) == 4
            assert session._opener.limit.seconds == 0.5  # for the next connection
            await session.close()

        run(main())


def test_a_lease_may_be_longer_than_the_server_can_count(storage: PostgresStorage) -> None:
    async def main() -> None:
        session = storage.session("w1", None, 100 * 365 * 86_400.0)
        await session.open()
        await session.close()

    run(main())


@pytest.mark.parametrize("keeping", [False, True])
def test_what_had_ended_in_an_exchange_of_a_loop_that_is_given_up_is_written_and_only_the_rest_goes_back(
    storage: PostgresStorage, queue: JobQueue, database: Database, keeping: bool
) -> None:
    """Nothing of it is started a second time: neither what has ended, nor what is known to run."""
    queue.options(max_retries=0).enqueue_many("f", ({} for _ in range(5)))

    async def main() -> None:
        async with half_sent(storage) as (session, (done, runs)):
            locked = "select count(*) from pg_locks where relation = 'dbjobq.done'::regclass"
            await asyncio.to_thread(until, lambda: database.value(locked), what="the half of an exchange")
            with closing(session.pulse()) as pulse:
                assert await asyncio.to_thread(pulse.finish, [ended(done)]) == set()
                keep = [runs] if keeping else []
                accepted, released = await asyncio.to_thread(pulse.take_over, keep, [ended(done)])
            assert accepted == {done.id}
            assert released == ([] if keeping else [runs.id])

    run(main())
