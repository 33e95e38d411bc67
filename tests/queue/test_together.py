"""Async enqueues that share a connection: many in one transaction, each with its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from dbjobq import AsyncJobQueue, PostgresStorage, job
from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.group_commit import LARGEST_GROUP
from tests.storage.database import Database, database
from tests.support.faultproxy import proxied
from tests.support.waiting import until

__all__ = ["database"]

WAITS = "select pid from pg_locks where not granted and relation = 'dbjobq.job'::regclass"
COMMITS = "select xact_commit from pg_stat_database where datname = current_database()"


@job(name="together.work")
async def work(number: int, text: str = "") -> None: ...


@asynccontextmanager
async def opened(dsn: str, **settings: Any) -> AsyncGenerator[AsyncJobQueue]:
    async with AsyncJobQueue(PostgresStorage(dsn, **settings)) as queue:
        await queue.enqueue(work, number=-1)  # connected, and the queue's number known
        yield queue


def test_a_thousand_at_once_are_a_few_transactions_on_one_connection(dsn: str, database: Database) -> None:
    async def main() -> list[str]:
        async with opened(dsn, max_size=1) as queue:
            return await asyncio.gather(*(queue.enqueue(work, number=n) for n in range(1000)))

    before = database.value("select count(distinct xmin::text) from dbjobq.job")
    ids = asyncio.run(main())
    assert before == 0
    assert len(set(ids)) == 1000
    stored = database.rows("select id::text, (data->>'number')::int from dbjobq.job where data->>'number' <> '-1'")
    assert dict(stored) == {i: n for n, i in enumerate(ids)}
    assert database.value("select count(*) from dbjobq.ready") == 1001
    assert database.value("select count(distinct xmin::text) from dbjobq.job") <= 1000 // LARGEST_GROUP + 4


def test_one_that_is_refused_does_not_harm_the_others(dsn: str, database: Database) -> None:
    async def main() -> list[Any]:
        async with opened(dsn) as queue:
            await asyncio.to_thread(database.rows, "alter table dbjobq.job add check (data->>'text' <> 'bad')")
            texts = ["bad" if n % 7 == 3 else "good" for n in range(50)]
            calls = (queue.enqueue(work, number=n, text=text) for n, text in enumerate(texts))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.gather(*(queue.enqueue(work, number=n, text="after") for n in range(20)))
            return answers

    answers = asyncio.run(main())
    for n, answer in enumerate(answers):
        assert isinstance(answer, psycopg.errors.CheckViolation if n % 7 == 3 else str)
    stored = {row[0] for row in database.rows("select id::text from dbjobq.job where data->>'text' = 'good'")}
    assert stored == {answer for answer in answers if isinstance(answer, str)}


def test_one_that_is_cancelled_does_not_keep_the_others(dsn: str, database: Database) -> None:
    async def main() -> list[str]:
        async with opened(dsn) as queue:
            tasks = [asyncio.create_task(queue.enqueue(work, number=n)) for n in range(30)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(answer, asyncio.CancelledError) for answer in done[::3])
            return [answer for answer in done if isinstance(answer, str)]

    ids = asyncio.run(main())
    assert len(ids) == 20
    assert set(ids) <= {row[0] for row in database.rows("select id::text from dbjobq.job")}


def test_a_connection_that_is_cut_costs_none_and_doubles_none(dsn: str, database: Database) -> None:
    proxy, through = proxied(dsn)

    async def main() -> list[str]:
        async with opened(through) as queue:
            tasks = [asyncio.create_task(queue.enqueue(work, number=n)) for n in range(300)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(proxy.reset)
            return await asyncio.gather(*tasks)

    with proxy:
        ids = asyncio.run(main())
    numbers = database.rows("select (data->>'number')::int from dbjobq.job where data->>'number' <> '-1' order by 1")
    assert [row[0] for row in numbers] == list(range(300))
    assert len(set(ids)) == 300


def test_a_server_that_is_gone_is_said_to_everybody(dsn: str) -> None:
    proxy, through = proxied(dsn)

    async def main() -> list[Any]:
        async with opened(through, timeout=1.0) as queue:
            await asyncio.to_thread(proxy.refuse)
            return await asyncio.gather(*(queue.enqueue(work, number=n) for n in range(20)), return_exceptions=True)

    with proxy:
        answers = asyncio.run(main())
    assert {type(answer) for answer in answers} == {StorageUnavailable}


def test_each_event_loop_has_its_own(dsn: str, database: Database) -> None:
    storage = PostgresStorage(dsn)

    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            await asyncio.gather(*(queue.enqueue(work, number=n) for n in range(10)))

    for _ in range(3):
        asyncio.run(main())
    assert database.value("select count(*) from dbjobq.ready") == 30
    storage.close()


@pytest.mark.parametrize("autocommit", [True, False])
def test_in_a_pool_of_ones_own_each_enqueue_is_committed_when_it_returns(
    dsn: str, autocommit: bool, database: Database
) -> None:
    from psycopg_pool import AsyncConnectionPool

    async def main() -> None:
        kwargs = {"autocommit": autocommit}
        async with AsyncConnectionPool(dsn, kwargs=kwargs, open=False, min_size=1) as pool:
            queue = AsyncJobQueue(PostgresStorage(pool))
            for n in range(1, 4):
                await asyncio.gather(*(queue.enqueue(work, number=n) for _ in range(2)))
                assert await asyncio.to_thread(database.value, "select count(*) from dbjobq.ready") == 2 * n

    asyncio.run(main())


@pytest.mark.parametrize("many", [1, 5])
def test_those_who_wait_are_answered_where_the_task_that_sends_for_them_is_cancelled(
    dsn: str, database: Database, many: int
) -> None:
    """As somebody does who cancels all tasks but its own."""

    async def main() -> list[str]:
        async with opened(dsn, timeout=30) as queue:
            with psycopg.connect(dsn) as other:
                other.execute("lock table dbjobq.job in share mode")
                first = asyncio.create_task(queue.enqueue(work, number=0))
                await asyncio.to_thread(until, lambda: database.rows(WAITS))
                calls = [first, *(asyncio.create_task(queue.enqueue(work, number=n)) for n in range(1, many))]
                await asyncio.sleep(0)
                for task in asyncio.all_tasks():
                    if task.get_name() == "dbjobq-group-commit":
                        task.cancel()
                await asyncio.sleep(0)
                other.rollback()
                return await asyncio.wait_for(asyncio.gather(*calls), 60)

    ids = asyncio.run(main())
    stored = "select id::text from dbjobq.job where data->>'number' <> '-1' order by (data->>'number')::int"
    assert [row[0] for row in database.rows(stored)] == ids


def test_a_loop_that_ends_while_calls_wait_ends_quietly(dsn: str, database: Database) -> None:
    """With it all tasks are cancelled at once: those who asked, and the one that sends for them."""

    async def main(other: psycopg.Connection[Any]) -> list[asyncio.Task[str]]:
        queue = AsyncJobQueue(PostgresStorage(dsn, timeout=30))
        await queue.enqueue(work, number=-1)
        other.execute("lock table dbjobq.job in share mode")
        calls = [asyncio.create_task(queue.enqueue(work, number=n)) for n in range(3)]
        await asyncio.to_thread(until, lambda: database.rows(WAITS))
        return calls

    with psycopg.connect(dsn) as other:
        left = asyncio.run(main(other))
        other.rollback()
    assert all(task.cancelled() for task in left)
