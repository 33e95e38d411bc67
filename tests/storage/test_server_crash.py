"""What a crash of the server takes back: claims that were not flushed to disk, and nothing that anybody relies on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dbjobq import JobQueue, PostgresStorage, schema
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.storage.values import Claim
from tests.storage.backstage import OnPostgres
from tests.storage.database import Database
from tests.storage.workers import BEAT, claim, ended, rescue, run, worker
from tests.support.crash import crash
from tests.support.waiting import until

LAZY = {"synchronous_commit": "on", "wal_writer_delay": "10s"}
"""Nothing is flushed before somebody asks for it: what was committed asynchronously is lost, almost always."""


@pytest.fixture
def dsn() -> Iterator[str]:
    with EmbeddedPostgres(settings=LAZY) as server:
        schema.migrate(server.dsn())
        yield server.dsn()


async def claimed_twice(storage: PostgresStorage, dsn: str) -> list[Claim]:
    """A claim that a crash took back, and the next one of the same job."""
    for _ in range(5):
        both: list[Claim] = []
        for name in ("before", "after"):
            async with worker(storage, name) as session:
                both += await claim(session)
                if len(both) == 1:
                    crash(dsn)
        if len(both) == 2:
            return both
        storage.finish([ended(both[0], "release")]).run()  # the WAL writer came between
    raise AssertionError("no claim was lost in five crashes")


def test_a_claim_that_was_not_flushed_is_a_redelivery_and_its_late_result_is_refused(dsn: str) -> None:
    """The sequence forgets with it what it has handed out: its next number must not open the old claim's fence."""

    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            JobQueue(storage).enqueue("f")
            lost, held = await claimed_twice(storage, dsn)
            assert (held.id, held.attempts) == (lost.id, 0)
            assert storage.finish([ended(lost, result="1")]).run() == set()
            assert storage.finish([ended(held, result="2")]).run() == {held.id}

    run(main())


@pytest.mark.parametrize("hinted", [False, True])
def test_a_job_on_its_last_start_is_not_redelivered_after_a_crash(dsn: str, hinted: bool) -> None:
    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            JobQueue(storage).enqueue_many("f", [dict[str, int]()] * 2, max_retries=0)
            async with worker(storage, "before") as session:
                if hinted:
                    assert len(await claim(session, 1)) == 1
                assert len(await claim(session, 1, promote=not hinted)) == 1
                crash(dsn)
            async with worker(storage, "after") as session:
                assert len(await claim(session)) == 2 - 1 - hinted

    run(main())


def test_a_worker_keeps_its_number_after_a_crash(dsn: str) -> None:
    """Two workers of one number would keep each other's leases, and give back each other's jobs."""

    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            async with worker(storage, "before", ["mail"]):
                crash(dsn)
            async with worker(storage, "after", ["other"]):
                with Database(dsn) as database:
                    assert database.rows("select name from dbjobq.worker order by id") == [("before",), ("after",)]
                    assert database.value("select count(*) from dbjobq.queue where name in ('mail', 'other')") == 2

    run(main())


def test_a_standby_that_does_not_confirm_costs_no_leases(dsn: str) -> None:
    """Results wait for it; if heartbeats did, too, all workers would be taken for dead at once."""

    async def main() -> None:
        with PostgresStorage(dsn) as storage, Database(dsn) as database:
            JobQueue(storage).enqueue("f")
            async with worker(storage) as session:
                await claim(session)
                database.rows("set synchronous_commit = off")
                database.rows("alter system set synchronous_standby_names = 'nobody'")
                database.rows("select pg_reload_conf()")
                until(lambda: database.value("show synchronous_standby_names") == "nobody")
                pulse = session.pulse()
                try:
                    assert await asyncio.wait_for(asyncio.to_thread(pulse.beat, BEAT), 60)
                    OnPostgres(database).kill("w1")
                    assert len(await asyncio.wait_for(asyncio.to_thread(pulse.rescue), 60)) == 1
                finally:
                    pulse.cut()
                    pulse.close()

    run(main())


def test_a_rescue_does_not_wait_for_a_worker_that_was_cut_off_in_its_transaction(
    storage: PostgresStorage, database: Database
) -> None:
    """A transactional job has finished, and its COMMIT never comes: its lease stays locked while the server waits."""

    async def main() -> None:
        JobQueue(storage).enqueue_many("f", [{}, {}])
        async with worker(storage) as session:
            stuck, free = await claim(session)
            with storage.transaction() as connection:
                assert storage.finish([ended(stuck)], connection).run() == {stuck.id}
                OnPostgres(database).kill("w1")
                rescued = await asyncio.wait_for(asyncio.to_thread(rescue, storage), 60)
                assert [one.id for one in rescued] == [free.id]
        assert rescue(storage) == []  # it was committed after all

    run(main())
