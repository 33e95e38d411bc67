"""What a crash of the server takes back: claims that were not flushed to disk, and nothing that anybody relies on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbjobq import JobQueue, PostgresStorage, schema
from dbjobq.embedded import EmbeddedPostgres
from tests.storage.database import Database
from tests.storage.workers import claim, ended, exchange, run, worker
from tests.support.crash import crash

LAZY = {"synchronous_commit": "on", "wal_writer_delay": "10s"}
"""Nothing is flushed before somebody asks for it: what was committed asynchronously is lost with certainty."""


@pytest.fixture
def dsn() -> Iterator[str]:
    with EmbeddedPostgres(settings=LAZY) as server:
        schema.migrate(server.dsn())
        yield server.dsn()


def test_a_claim_that_was_not_flushed_is_a_redelivery_and_its_late_result_is_refused(dsn: str) -> None:
    """The sequence forgets with it what it has handed out: its next number must not open the old claim's fence."""

    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            job_id = JobQueue(storage).enqueue("f")
            async with worker(storage, "before") as session:
                (lost,) = await claim(session)
                crash(dsn)
            async with worker(storage, "after") as session:
                (held,) = await claim(session)
                assert (held.id, held.attempts) == (job_id, 0)
                assert storage.finish([ended(lost, result="1")]).run() == set()
                assert (await exchange(session, [ended(held)])).refused == []

    run(main())


@pytest.mark.parametrize("hinted", [False, True])
def test_a_job_on_its_last_start_is_not_redelivered_after_a_crash(dsn: str, hinted: bool) -> None:
    async def main() -> None:
        with PostgresStorage(dsn) as storage:
            JobQueue(storage).enqueue_many("f", [{}] * 2, max_retries=0)
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
