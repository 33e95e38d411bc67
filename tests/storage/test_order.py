"""In which order jobs come: priority, then when they became due, over all that is due, ready or scheduled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.storage.workers import claim, ended, exchange, rescue, run, worker

if TYPE_CHECKING:
    from dbjobq import BaseStorage, JobQueue, PostgresStorage
    from dbjobq.storage.values import Claim
    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

PIECE = 2000
"""So many jobs are made ready at once, those that have been due longest."""


def all_due(queue: JobQueue, backstage: Backstage) -> tuple[str, str]:
    """Enqueue more than two pieces of delayed jobs whose time comes at once; return the two most urgent: the last."""
    queue.options(delay=100, priority=3).enqueue_many("f", ({} for _ in range(2 * PIECE + 100)))
    ids = [queue.options(delay=100, priority=priority).enqueue("f") for priority in (8, 9)]
    backstage.fall_due()
    return ids[1], ids[0]


@pytest.mark.every_storage
def test_the_highest_priority_comes_first_of_all_that_is_due_however_much_that_is(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    first, second = all_due(queue, backstage)
    ready = queue.options(priority=5).enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            assert [c.id for c in await claim(session, 1)] == [first]
            assert [c.id for c in await claim(session, 2)] == [second, ready]

    run(main())


@pytest.mark.every_storage
def test_dequeue_takes_the_highest_priority_of_all_that_is_due(queue: JobQueue, backstage: Backstage) -> None:
    ids = all_due(queue, backstage)
    assert [found.id for _ in ids if (found := queue.dequeue())] == list(ids)


@pytest.mark.every_storage
def test_a_claim_of_more_than_a_piece_takes_what_was_due_before_newer_jobs(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    older = queue.options(delay=100).enqueue_many("f", ({} for _ in range(2 * PIECE)))
    backstage.fall_due()
    newer = queue.enqueue_many("f", ({} for _ in range(10)))

    async def main() -> None:
        async with worker(storage) as session:
            assert [c.id for c in await claim(session, 2 * PIECE + 5)] == [*older, *newer[:5]]

    run(main())


def test_claims_wait_while_there_is_more_due_than_an_exchange_can_make_ready_and_results_do_not(
    storage: PostgresStorage,
    queue: JobQueue,
    backstage: Backstage,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    async def main() -> None:
        async with worker(storage) as session:
            done = queue.enqueue("f")
            (held,) = await claim(session)
            first, _second = all_due(queue, backstage)
            monkeypatch.setattr("dbjobq.storage.postgres.worker.exchange.PROMOTE_WITHIN", 0.0)  # not even one piece
            step = await exchange(session, [ended(held)], 1, promote=True)
            assert (step.claims, step.refused, step.next_due) == ([], [], 0)
            job = queue.get_job(done)
            assert job is not None
            assert job.status == "completed"
            assert database.value("select count(*) from dbjobq.ready") == 0
            monkeypatch.undo()
            assert [c.id for c in await claim(session, 1)] == [first]

    run(main())


def test_claims_do_not_wait_for_ever_for_what_falls_due(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbjobq.storage.postgres.worker.exchange.PROMOTE_WITHIN", 0.0)
    monkeypatch.setattr("dbjobq.storage.postgres.worker.exchange.PROMOTE_AT_MOST", 0.1)

    async def main() -> None:
        async with worker(storage) as session:
            all_due(queue, backstage)
            ready = queue.enqueue("f")
            assert [c.id for c in await claim(session, 1)] == [ready]

    run(main())


@pytest.mark.every_storage
@pytest.mark.parametrize("delay", [0, 60])
def test_a_delayed_job_that_was_cancelled_comes_back_for_its_time_and_not_before(
    queue: JobQueue, backstage: Backstage, delay: float
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1000)
    job_id = queue.options(execute_at=at).enqueue("f")
    queue.cancel(job_id)
    assert queue.retry(job_id, delay_seconds=delay)
    assert queue.dequeue() is None
    due = backstage.due_in()
    assert due is not None
    assert 900 < due <= 1000
    queue.cancel(job_id)
    assert queue.retry(job_id, delay_seconds=5000)
    due = backstage.due_in()
    assert due is not None
    assert 4900 < due <= 5000


@pytest.mark.every_storage
@pytest.mark.parametrize("how", ["released", "rescued", "given back at the end"])
def test_a_delayed_job_that_comes_back_has_the_place_of_its_time_not_of_its_enqueue(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage, how: str
) -> None:
    delayed = queue.options(delay=0.2).enqueue("f")
    between = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage, "w1") as one, worker(storage, "w2") as two:
            claims: list[Claim] = []
            async with asyncio.timeout(30):
                while len(claims) < 2:
                    claims += await claim(one)
            assert [c.id for c in claims] == [between, delayed]
            if how == "released":
                await exchange(one, [ended(c, "release") for c in claims])
            elif how == "rescued":
                backstage.kill("w1")
                rescue(storage)
            else:
                await one.release()
            assert [c.id for c in await claim(two)] == [between, delayed]

    run(main())
