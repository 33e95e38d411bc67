"""Queues cost nothing by their number: a worker of all queues goes to those that hold something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage
from dbjobq.storage.postgres.worker.served import FEW, MET, ServedQueues
from tests.storage.test_plans import CLAIM, explain
from tests.storage.workers import claim, ended, exchange, run, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbjobq.storage.worker_port import Session
    from tests.storage.database import Database
    from tests.support.server import Databases

MANY = "insert into dbjobq.queue (name, wanted) select 'q' || n, n %% 1000 <> 0 from generate_series(1, %s) as n"


@pytest.fixture(scope="module")
def crowded(databases: Databases) -> Iterator[str]:
    """100,000 queues, and 100 jobs in some of them."""
    with databases.fresh() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(MANY.encode(), (100_000,))
            with PostgresStorage(dsn) as storage:
                for number in range(10):
                    queue = JobQueue(storage).options(queue=f"q{number * 9999 + 5}")
                    queue.enqueue_many("f", ({} for _ in range(10)))
            connection.execute("vacuum analyze")
        yield dsn


IDLE = {"queues": "{1,7,5000}", "few": FEW, "since": None, "worker": 1, "name": "w1"}
STATEMENTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "claim_any": ("claim_any", CLAIM | {"turn": 50_000}, 100 * 13 + 80),
    "claim_any of one": ("claim_any", CLAIM | {"turn": 50_000, "limit": 1}, 50),
    "idle_of": ("idle_of", IDLE, 40),
    "busy": ("busy", {"queues": "{1,7,5000}"}, 40),
    "queues": ("queues", {"limit": FEW + 1}, 20),
    "queues_named": ("queues_named", {"names": ["q77", "q99"]}, 20),
    "queues_numbered": ("queues_numbered", {"numbers": "{77,99}"}, 20),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_what_a_worker_sends_reads_few_pages_beside_100_000_queues(crowded: str, case: str) -> None:
    name, params, most = STATEMENTS[case]
    assert explain(crowded, name, params, pinned=True).shared <= most


def test_a_worker_learns_only_what_it_meets(crowded: str) -> None:
    async def main() -> None:
        with PostgresStorage(crowded) as storage:
            async with worker(storage) as session:
                claims = await claim(session, 100)
                assert {c.queue for c in claims} == {f"q{number * 9999 + 5}" for number in range(10)}
                served: ServedQueues = vars(session)["_queues"]
                assert len(served.names) <= 100
                assert len(served.numbers) <= MET
                await exchange(session, [ended(c, "release") for c in claims])

    run(main())


# As with few.


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    """Two queues are many."""
    monkeypatch.setattr("dbjobq.storage.postgres.worker.served.FEW", 1)
    database.connection.execute(MANY.encode(), (5,))
    database.rows("update dbjobq.queue set wanted = true")


async def asleep(session: Session) -> None:
    while (await session.idle()).look_in is not None:
        await claim(session)


@pytest.mark.usefixtures("many")
def test_each_queue_has_its_turn(storage: PostgresStorage, queue: JobQueue) -> None:
    for name in ("q1", "q3", "q5"):
        queue.options(queue=name).enqueue_many("f", ({} for _ in range(4)))

    async def main() -> None:
        async with worker(storage) as session:
            turns = [{c.queue for c in await claim(session, 2)} for _ in range(6)]
            assert turns == [{"q1"}, {"q3"}, {"q5"}] * 2
            assert await claim(session) == []

    run(main())


@pytest.mark.usefixtures("many")
def test_a_claim_goes_on_with_the_next_queues_in_their_turns_and_their_order(
    storage: PostgresStorage, queue: JobQueue
) -> None:
    for name in ("q4", "q2"):
        queue.options(queue=name, priority=1).enqueue("f")
        queue.options(queue=name, priority=9).enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            claims = [(c.queue, c.priority) for c in await claim(session, 10)]
            assert claims == [("q2", 9), ("q2", 1), ("q4", 9), ("q4", 1)]
            queue.options(queue="new").enqueue("f")
            assert [c.queue for c in await claim(session, 10)] == ["new"]

    run(main())


@pytest.mark.usefixtures("many")
def test_who_sleeps_is_told_of_any_queue(storage: PostgresStorage, queue: JobQueue, database: Database) -> None:
    """Also of those for which a worker that has died since had said that nobody need be told."""
    database.rows("update dbjobq.queue set wanted = false where name = 'q2'")

    async def main() -> None:
        async with worker(storage) as session, worker(storage, "w2") as other:
            await asleep(session)
            for name in ("q1", "q2", "new"):
                with database.notified() as heard:
                    queue.options(queue=name).enqueue("f")
                assert len(heard) == 1
            for each in await claim(session, 3):
                await exchange(session, [ended(each)])
            queue.options(queue="q3").enqueue_many("f", [{}, {}, {}])
            await claim(other, 1)
            await claim(other, 1, rush=True)
            with database.notified() as heard:
                queue.options(queue="q3").enqueue("f")
            assert heard == []
            await asleep(other)
            with database.notified() as heard:
                queue.options(queue="q3").enqueue("f")
            assert len(heard) == 1

    run(main())


@pytest.mark.usefixtures("many")
def test_a_sleeper_that_hears_that_a_queue_is_busy_has_itself_told_of_it_again(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    async def main() -> None:
        async with worker(storage) as session, worker(storage, "w2") as busy:
            notices = session.notices()
            while (await anext(notices)).kind != "echo":
                pass
            await asleep(session)
            queue.options(queue="q3").enqueue_many("f", [{}, {}])
            await claim(busy, 1)
            await claim(busy, 1, rush=True)  # and dies now
            for _ in range(2):
                assert (await anext(notices)).kind == "work"
            assert await claim(session) == []
            await asleep(session)
            with database.notified() as heard:
                queue.options(queue="q3").enqueue("f")
            assert len(heard) == 1
            await notices.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    run(main())


@pytest.mark.usefixtures("many")
def test_a_sleeper_minds_no_notification_of_what_cannot_be_a_queue(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    """Everybody who may connect may notify, whatever they like."""

    async def main() -> None:
        async with worker(storage) as session:
            notices = session.notices()
            while (await anext(notices)).kind != "echo":
                pass
            for payload in ("b", "bx", "b-1", "b99999999999", "b4294967297", "b" + "9" * 7000, "?", "w" + "9" * 7000):
                database.rows("select pg_notify('dbjobq', %s)", payload)
            database.rows("select pg_notify('dbjobq', 'cthe last')")
            while (await anext(notices)).kind != "cancel":
                pass
            queue.options(queue="q3").enqueue("f")
            assert len(await claim(session)) == 1
            await asleep(session)
            await notices.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    run(main())
