"""Who is told of work, and who is not: an enqueue notifies if, and only if, a worker may be asleep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage
from dbjobq.queue.queues import WithOptions
from dbjobq.storage.postgres.statements import Statements
from dbjobq.storage.values import Notice
from tests.storage.workers import BEAT, claim, ended, exchange, rescue, run, worker
from tests.support.waiting import until

if TYPE_CHECKING:
    from dbjobq.storage.worker_port import Session
    from tests.storage.backstage import Backstage
    from tests.storage.database import Database


@pytest.fixture
def busy(database: Database) -> Callable[[], None]:
    """Makes it known that no worker sleeps, as workers under load do."""

    def say() -> None:
        database.rows("update dbjobq.queue set wanted = false")

    return say


async def asleep(session: Session) -> None:
    """Look until there is no reason to look again."""
    while (await session.idle()).look_in is not None:
        await claim(session)


def number(database: Database, queue: str = "default") -> str:
    return f"w{database.value('select id from dbjobq.queue where name = %s', queue)}"


@pytest.mark.parametrize("how", ["one", "keyed", "many", "connection"])
def test_an_enqueue_notifies_a_worker_that_sleeps(  # noqa: PLR0917 - fixtures and parameters
    storage: PostgresStorage, queue: JobQueue, database: Database, dsn: str, busy: Callable[[], None], how: str
) -> None:
    def enqueue() -> None:
        if how == "one":
            queue.enqueue("f")
        elif how == "keyed":
            queue.options(unique_key=f"k{queue.count()}").enqueue("f")
        elif how == "many":
            queue.enqueue_many("f", [{}, {}])
        else:
            with psycopg.connect(dsn) as connection:
                queue.options(connection=connection).enqueue("f")
                queue.options(connection=connection).enqueue_many("f", [{}])

    busy()
    with database.notified() as heard:
        enqueue()
    assert heard == []

    async def main() -> None:
        async with worker(storage) as session:
            await asleep(session)
            with database.notified() as heard:
                enqueue()
            assert set(heard) == {number(database)}

    run(main())


def test_a_scheduled_job_notifies_too_so_that_the_sleeper_learns_when_it_is_due(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            await asleep(session)
            with database.notified() as heard:
                queue.options(delay=60).enqueue("f")
            assert heard == [number(database)]
            due = (await session.idle()).next_due
            assert due is not None
            assert 50 < due <= 60

    run(main())


def test_a_worker_in_a_rush_stops_the_notifying_until_somebody_sleeps(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    queue.enqueue_many("f", ({} for _ in range(30)))

    async def main() -> None:
        async with worker(storage) as session:
            await asleep(session)
            await claim(session, 2, rush=True)
            with database.notified() as heard:
                queue.enqueue("f")
            assert heard == []
            await claim(session, 100)
            await asleep(session)
            with database.notified() as heard:
                queue.enqueue("f")
            assert len(heard) == 1

    run(main())


def test_a_worker_that_is_paused_while_it_says_so_holds_up_no_other_and_wakes_who_sleeps_when_it_goes_on(
    storage: PostgresStorage, queue: JobQueue, database: Database, dsn: str
) -> None:
    queue.enqueue_many("f", ({} for _ in range(30)))

    async def main() -> None:
        async with worker(storage) as session, worker(storage, "asleep") as sleeper:
            served = {"queues": f"{{{database.value('select id from dbjobq.queue')}}}"}
            with psycopg.connect(dsn) as paused, closing(session.pulse()) as pulse:
                paused.execute(Statements("dbjobq")["busy"], served)  # the end of its exchange is not sent
                assert len(await asyncio.wait_for(claim(session, 30, rush=True), 60)) == 30
                assert await asyncio.wait_for(asyncio.to_thread(pulse.beat, BEAT), 60)
                await asyncio.wait_for(asleep(sleeper), 60)
                with database.notified() as heard:
                    paused.commit()
                assert heard == [number(database).replace("w", "b")]

    run(main())


def test_retry_release_rescue_and_promotion_notify_a_worker_that_sleeps(
    storage: PostgresStorage, queue: JobQueue, database: Database, backstage: Backstage
) -> None:
    queue.enqueue_many("f", [{"n": n} for n in range(6)], max_retries=5)

    async def main() -> None:
        async with worker(storage, "busy") as busy, worker(storage, "asleep") as session:
            held = await claim(busy)
            queue.cancel(held[3].id)
            await asleep(session)
            woken = number(database)
            with database.notified() as heard:
                await exchange(busy, [ended(held[0], "retry", delay=60.0)])
            assert heard == [woken]
            with database.notified() as heard:
                await exchange(busy, [ended(held[1], "release")])
            assert heard == [woken]
            with database.notified() as heard:
                queue.retry(held[3].id)
            assert heard == [woken]
            with database.notified() as heard:
                backstage.skip(61)
                backstage.kill("busy")
                rescue(storage)
            assert heard == [woken]
            queue.enqueue_many("f", [{}, {}], max_retries=5)
            await claim(session)
            await asleep(session)
            with database.notified() as heard:
                assert await session.release()
            assert heard == [woken]

    run(main())


def test_whoever_makes_scheduled_jobs_ready_wakes_others_for_those_it_does_not_take(
    storage: PostgresStorage, queue: JobQueue, database: Database, backstage: Backstage
) -> None:
    queue.options(delay=60).enqueue_many("f", [{}, {}])

    async def main() -> None:
        async with worker(storage, "busy") as busy, worker(storage, "asleep") as session:
            await asleep(session)
            backstage.skip(61)
            with database.notified() as heard:
                assert len(await claim(busy, 1)) == 1
            assert heard == [number(database)]

    run(main())


Enqueue = Callable[[WithOptions], object]
HOW: list[Enqueue] = [
    lambda q: q.enqueue("f"),
    lambda q: q.options(unique_key="k").enqueue("f"),
    lambda q: q.options(delay=5).enqueue("f"),
    lambda q: q.enqueue_many("f", [{}]),
]


@pytest.mark.parametrize("how", HOW, ids=["one", "keyed", "later", "many"])
@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_snapshot_that_is_older_than_the_workers_sleep_notifies_since_it_cannot_know(  # noqa: PLR0917 - fixtures and parameters
    queue: JobQueue,
    database: Database,
    dsn: str,
    busy: Callable[[], None],
    how: Enqueue,
    level: psycopg.IsolationLevel,
) -> None:
    queue.enqueue("f")
    busy()
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = level
        connection.execute("select")  # it has its snapshot
        database.rows("update dbjobq.queue set wanted = true")
        with database.notified() as heard:
            how(queue.options(connection=connection))
            connection.commit()
    assert heard == [number(database)]


@pytest.mark.parametrize("how", HOW, ids=["one", "keyed", "later", "many"])
def test_a_transaction_that_enqueued_before_the_worker_slept_is_waited_for(  # noqa: PLR0917 - fixtures and parameters
    storage: PostgresStorage,
    queue: JobQueue,
    database: Database,
    backstage: Backstage,
    dsn: str,
    busy: Callable[[], None],
    how: Enqueue,
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            await asleep(session)
            busy()
            with psycopg.connect(dsn) as connection:
                with database.notified() as heard:
                    how(queue.options(connection=connection))
                for _ in range(5):
                    look_in = (await session.idle()).look_in
                    assert look_in is not None
                    assert 0 <= look_in <= 0.25
                    assert await claim(session) == []
                connection.commit()
            assert heard == []
            backstage.skip(6)
            assert len(await claim(session)) == 1
            assert [(await session.idle()).look_in for _ in range(2)] == [0, None]  # once more, then it sleeps

    run(main())


@pytest.mark.parametrize("how", ["at once", "one after the other"])
def test_every_worker_that_falls_asleep_waits_for_open_transactions_not_only_the_one_that_sets_the_flag(  # noqa: PLR0917 - fixtures and parameters
    storage: PostgresStorage, queue: JobQueue, database: Database, dsn: str, busy: Callable[[], None], how: str
) -> None:
    """It may bring more jobs than one of them takes."""

    async def listening(session: Session) -> AsyncIterator[Notice]:
        notices = session.notices()
        while (await anext(notices)).kind != "echo":
            pass
        return notices

    async def main() -> None:
        async with worker(storage, "w1") as one, worker(storage, "w2") as two, worker(storage, "busy") as third:
            told = await listening(two)
            for session in (one, two):
                await asleep(session)
            if how == "at once":
                busy()
            else:
                queue.enqueue_many("f", [{}, {}])
                await claim(third, 2, rush=True)
                for _ in range(2):  # of jobs, and that none will be told of: it looks, and finds nothing
                    assert await asyncio.wait_for(anext(told), 30) == Notice("work")
                assert await claim(two) == []
            with psycopg.connect(dsn) as connection:
                queue.options(connection=connection).enqueue("f")
                queue.options(connection=connection).enqueue("f")
                if how == "at once":
                    with psycopg.connect(dsn) as gate:
                        gate.execute("select from dbjobq.queue for update")
                        idling = [asyncio.ensure_future(session.idle()) for session in (one, two)]
                        blocked = "select count(*) = 2 from pg_locks where not granted"
                        await asyncio.to_thread(until, lambda: database.value(blocked))
                        gate.rollback()
                        found = [await idle for idle in idling]
                else:
                    found = [await session.idle() for session in (one, two)]
                assert [idle.look_in for idle in found] == [0, 0]
                found = [await session.idle() for session in (one, two)]
                assert all(idle.look_in is not None and idle.look_in > 0 for idle in found)
                connection.commit()
            assert [len(await claim(session, 1)) for session in (one, two)] == [1, 1]
            for session in (one, two):
                await asleep(session)
            await told.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    run(main())


def test_a_transaction_that_ends_between_the_last_look_and_the_sleep_is_looked_for_once_more(
    storage: PostgresStorage, queue: JobQueue, dsn: str, busy: Callable[[], None]
) -> None:
    """It has notified nobody: without another look, its job waits for the next poll."""

    async def main() -> None:
        async with worker(storage) as session:
            busy()
            with psycopg.connect(dsn) as connection:
                queue.options(connection=connection).enqueue("f")
                assert (await session.idle()).look_in is not None
                assert await claim(session) == []
                connection.commit()
            assert (await session.idle()).look_in is not None
            assert len(await claim(session)) == 1
            assert (await session.idle()).look_in is None

    run(main())


def test_transactions_that_do_not_enqueue_are_not_waited_for(
    storage: PostgresStorage, dsn: str, database: Database, busy: Callable[[], None]
) -> None:
    database.rows("create table other (id int)")

    async def main() -> None:
        async with worker(storage) as session:
            busy()
            with psycopg.connect(dsn) as connection:
                connection.execute("insert into other values (1)")
                connection.execute("select count(*) from dbjobq.jobs")
                await session.idle()
                assert (await session.idle()).look_in is None

    run(main())


def test_a_transaction_that_began_after_the_worker_slept_is_not_waited_for(
    storage: PostgresStorage, queue: JobQueue, dsn: str, busy: Callable[[], None]
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            busy()
            await asleep(session)
            with psycopg.connect(dsn) as connection:
                queue.options(connection=connection).enqueue("f")
                assert (await session.idle()).look_in is None

    run(main())


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("how", ["one", "keyed", "many"])
def test_a_caller_with_an_old_snapshot_always_notifies(  # noqa: PLR0917 - fixtures and parameters
    storage: PostgresStorage,
    queue: JobQueue,
    dsn: str,
    database: Database,
    busy: Callable[[], None],
    level: psycopg.IsolationLevel,
    how: str,
) -> None:
    queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            with psycopg.connect(dsn) as connection:
                connection.isolation_level = level
                busy()
                connection.execute("select count(*) from dbjobq.queue")  # the snapshot is of now
                await claim(session)
                await asleep(session)
                with database.notified() as heard:
                    inside = queue.options(connection=connection)
                    if how == "one":
                        inside.enqueue("f")
                    elif how == "keyed":
                        inside.options(unique_key="k").enqueue("f")
                    else:
                        inside.enqueue_many("f", [{}])
                    connection.commit()
                assert heard == [number(database)]

    run(main())


def test_a_new_queue_wakes_workers_of_every_queue(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            await asleep(session)
            with database.notified() as heard:
                queue.options(queue="new").enqueue("f")
            assert heard == [number(database, "new")]
            assert (await session.idle()).look_in is not None
            assert [c.queue for c in await claim(session)] == ["new"]

    run(main())


def test_idle_says_when_the_next_scheduled_job_is_due(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            assert (await session.idle()).next_due is None
            queue.options(delay=100).enqueue("f")
            queue.options(delay=50).enqueue("f")
            due = (await session.idle()).next_due
            assert due is not None
            assert 45 < due <= 50
            backstage.skip(60)
            due = (await session.idle()).next_due
            assert due is not None
            assert due <= 0
            assert len(await claim(session, promote=True)) == 1

    run(main())


def test_notices_tell_of_work_and_of_cancelled_jobs(storage: PostgresStorage, queue: JobQueue) -> None:
    async def main() -> None:
        async with worker(storage, queues=["mine"]) as session:
            await asleep(session)
            notices = session.notices()
            assert await anext(notices) == Notice("work")  # for what happened before
            queue.options(queue="not mine").enqueue("f")
            one = queue.options(queue="mine").enqueue("f")
            assert await anext(notices) == Notice("work")
            await claim(session)
            assert await anext(notices) == Notice("echo")
            queue.cancel(one)
            assert await anext(notices) == Notice("cancel", one)
            two = asyncio.ensure_future(anext(notices))
            queue.options(queue="mine").enqueue("f")
            assert await two == Notice("work")
            await notices.aclose()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    run(main())


def test_a_worker_with_a_strange_schema_listens_on_its_own_channel(empty_dsn: str) -> None:
    from dbjobq.schema import migrate

    migrate(empty_dsn, "My Schéma")
    with PostgresStorage(empty_dsn, schema="My Schéma") as storage:
        queue = JobQueue(storage)

        async def main() -> None:
            session = storage.session("w", None, BEAT)
            await session.open()
            await asleep(session)
            notices = session.notices()
            await anext(notices)
            queue.enqueue("f")
            assert await anext(notices) == Notice("work")
            await notices.aclose()
            await session.close()

        run(main())
