"""A claim has a bound in bytes: no worker gets more arguments than it can hold."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

import pytest

from dbjobq.storage.postgres.worker import claims as module
from dbjobq.storage.values import Exchange
from tests.storage.test_plans import explain, job_id
from tests.storage.workers import claim, ended, exchange, rescue, run, worker

if TYPE_CHECKING:
    from dbjobq import JobQueue, PostgresStorage
    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

KINDS = {
    "compressed": "x" * 1_000_000,  # a few kilobytes where it lies
    "not compressed": "".join(random.Random(1).choices(string.printable[:94], k=100_000)),
}
LEASED = "select count(*) from dbjobq.lease"


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_brings_as_much_as_there_is_room_for_and_the_rest_waits_in_its_order(
    storage: PostgresStorage, queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "ROOM", int(len(KINDS[kind]) * 3.5))
    ids = list(queue.enqueue_many("f", ({"text": KINDS[kind]} for _ in range(20))))
    ids += queue.enqueue_many("f", ({} for _ in range(30)))

    async def main() -> None:
        async with worker(storage) as session:
            seen: list[str] = []
            most, sizes = 0, list[int]()
            while claims := await claim(session, 60):
                assert database.value(LEASED) == len(claims)
                seen += [c.id for c in claims]
                sizes.append(len(claims))
                most = max(most, sum(len(c.data) for c in claims))
                assert all(c.job("w").data == ({"text": KINDS[kind]} if len(c.data) > 10 else {}) for c in claims)
                await exchange(session, [ended(c) for c in claims])
            assert seen == ids
            assert most <= module.ROOM
            assert 7 <= len(sizes) <= 14  # three at a time; then ever more

    run(main())


def test_a_job_for_which_there_is_no_room_comes_alone(
    storage: PostgresStorage, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM", 50_000)
    ids = queue.enqueue_many("f", ({"text": KINDS["not compressed"]} for _ in range(3)))

    async def main() -> None:
        async with worker(storage) as session:
            for job in ids:
                assert [c.id for c in await claim(session)] == [job]
            assert await claim(session) == []

    run(main())


def test_a_worker_says_how_much_room_it_has(storage: PostgresStorage, queue: JobQueue) -> None:
    queue.enqueue_many("f", ({"text": KINDS["not compressed"]} for _ in range(5)))

    async def main() -> None:
        async with worker(storage) as session:
            answer = await session.step(Exchange(want=5, space=lambda: 250_000))
            assert len(answer.claims) == 2
            answer = await session.step(Exchange(want=5, space=lambda: -1))
            assert len(answer.claims) == 1

    run(main())


def test_large_jobs_that_a_worker_died_with_come_one_at_a_time(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage
) -> None:
    ids = queue.enqueue_many("f", ({"text": KINDS["not compressed"]} for _ in range(4)))

    async def main() -> None:
        async with worker(storage) as session:
            assert len(await claim(session)) == 4
            backstage.kill("w1")
            assert len(rescue(storage)) == 4
        async with worker(storage, "w2") as session:
            for job in ids:
                assert [c.id for c in await claim(session)] == [job]

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_dequeue_brings_large_data(queue: JobQueue, kind: str) -> None:
    queue.enqueue("f", text=KINDS[kind])
    found = queue.dequeue()
    assert found is not None
    assert found.data == {"text": KINDS[kind]}


def test_no_more_is_unpacked_than_there_is_room_for(queue: JobQueue, database: Database, dsn: str) -> None:
    ids = queue.enqueue_many("f", ({"text": KINDS["not compressed"]} for _ in range(50)))
    database.rows("vacuum analyze")
    few, many = (
        explain(dsn, "bodies", {"ids": "{" + ",".join(ids) + "}", "room": room}, pinned=True).shared
        for room in (250_000, 100_000_000)
    )
    assert few < 2 * many / 25 + 30
    assert explain(dsn, "bodies", {"ids": f"{{{job_id(1)}}}", "room": 1}, pinned=True).shared < 20
