"""Places whose job is gone, since somebody has deleted rows of `job`: they hold up nobody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.storage.workers import claim, ended, exchange, run, worker

if TYPE_CHECKING:
    from dbjobq import JobQueue, PostgresStorage
    from tests.storage.database import Database

EMPTY = {
    "ready": "insert into dbjobq.ready (position, queue, priority, job_id)"
    " select n, 1, 5 + n %% 3, gen_random_uuid() from generate_series(1, %s) as n",
    "scheduled": "insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)"
    " select now() - interval '1 h', n, 1, 5 + n %% 3, gen_random_uuid() from generate_series(1, %s) as n",
}
LEFT = """
select (select count(*) from dbjobq.ready) + (select count(*) from dbjobq.scheduled)
     + (select count(*) from dbjobq.lease)
"""


@pytest.mark.parametrize("place", EMPTY)
@pytest.mark.parametrize("want", [1, 10])
def test_an_honest_job_behind_places_without_a_body_comes_with_the_first_claim(  # noqa: PLR0917 - fixtures and parameters
    storage: PostgresStorage,
    queue: JobQueue,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    place: str,
    want: int,
) -> None:
    caplog.set_level(logging.INFO, "dbjobq")

    async def main() -> None:
        async with worker(storage) as session:
            for _ in range(2):
                database.connection.execute(EMPTY[place].encode(), (1500,))
                honest = queue.enqueue("f")
                claims = await claim(session, want)
                assert [c.id for c in claims] == [honest]
                await exchange(session, [ended(c) for c in claims])
                assert database.value(LEFT) == 0

    run(main())
    assert [record.getMessage() for record in caplog.records] == ["places.cleared"]  # once


def test_so_many_of_them_that_they_take_several_exchanges_do_not_send_a_worker_to_sleep(
    storage: PostgresStorage, queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbjobq.storage.postgres.worker.claims.CLEARINGS", 2)
    database.connection.execute(EMPTY["ready"].encode(), (5000,))
    honest = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            looks = 1
            while not (claims := await claim(session, 1)):
                assert (await session.idle()).look_in == 0
                looks += 1
            assert [c.id for c in claims] == [honest]
            assert looks == 3
            assert database.value(LEFT) == 1
            assert await claim(session) == []
            while (await session.idle()).look_in is not None:
                assert await claim(session) == []

    run(main())


def test_among_them_a_claim_is_as_full_as_it_is_to_be(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    ids = queue.enqueue_many("f", ({} for _ in range(40)))
    database.rows("delete from dbjobq.job where position %% 2 = %s", 0)
    left = {str(i) for (i,) in database.rows("select id from dbjobq.job")}
    assert 0 < len(left) < len(ids)

    async def main() -> None:
        async with worker(storage) as session:
            claims = await claim(session, len(left))
            assert {c.id for c in claims} == left
            assert database.value(LEFT) == len(left)

    run(main())


def test_dequeue_returns_the_honest_job_behind_them(queue: JobQueue, database: Database) -> None:
    database.connection.execute(EMPTY["ready"].encode(), (1500,))
    honest = queue.enqueue("f")
    found = queue.dequeue()
    assert found is not None
    assert found.id == honest
    assert database.value(LEFT) == 1
    assert queue.dequeue() is None


def test_clearing_takes_no_place_that_has_a_job(queue: JobQueue, database: Database) -> None:
    ids = queue.enqueue_many("f", ({} for _ in range(5)), priority=4)
    database.connection.execute(EMPTY["ready"].encode(), (10,))
    for _ in ids:
        assert queue.dequeue() is not None
    assert queue.dequeue() is None
    assert database.value(LEFT) == len(ids)
