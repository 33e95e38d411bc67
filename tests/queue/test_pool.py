"""The pools of connections that calls make, lend and take back themselves."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolClosed, PoolTimeout

from dbjobq.storage.postgres.connect import stock
from dbjobq.storage.postgres.connect.pool import AsyncPool, Pool
from tests.storage.database import Database
from tests.support.waiting import until

CONNECTIONS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'lent'"


class Way:
    """Makes connections, unless the server is away."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.away = self.patient = False
        self.tries = 0

    def connect(self, _: float) -> psycopg.Connection[Any]:
        self.tries += 1
        if self.away:
            raise psycopg.OperationalError("connection refused")
        return psycopg.connect(self.dsn, autocommit=True, application_name="lent")

    async def aconnect(self, _: float) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, application_name="lent")


@pytest.fixture
def way(dsn: str) -> Way:
    return Way(dsn)


@pytest.fixture
def pool(way: Way) -> Iterator[Pool]:
    made = Pool(way.connect, most=2, timeout=5.0, patient=lambda: way.patient)
    yield made
    made.close()
    for connection in tuple(made._made):
        made.putconn(connection)


def test_calls_one_after_the_other_use_one_connection(pool: Pool, way: Way) -> None:
    for _ in range(10):
        pool.putconn(pool.getconn(1.0))
    assert way.tries == 1


def test_there_are_no_more_connections_than_said(pool: Pool) -> None:
    both = {pool.getconn(1.0), pool.getconn(1.0)}
    assert len(both) == 2
    with pytest.raises(PoolTimeout, match="all are in use"):
        pool.getconn(0.1)
    for connection in both:
        pool.putconn(connection)
    assert {pool.getconn(1.0), pool.getconn(1.0)} == both


def test_who_waits_for_a_connection_gets_the_first_that_comes_back(pool: Pool) -> None:
    held = [pool.getconn(1.0), pool.getconn(1.0)]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.getconn, 30.0)
        until(lambda: pool._waiting)
        pool.putconn(held[0])
        assert waiting.result(60) is held[0]


def test_who_waits_makes_one_where_what_comes_back_is_unfit(pool: Pool) -> None:
    held = [pool.getconn(1.0), pool.getconn(1.0)]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.getconn, 30.0)
        until(lambda: pool._waiting)
        held[0].close()
        pool.putconn(held[0])
        assert waiting.result(60) not in held


def test_many_threads_share_few_connections_and_none_waits_in_vain(pool: Pool, way: Way) -> None:
    def work(_: int) -> int:
        for _call in range(50):
            connection = pool.getconn(30.0)
            connection.execute("select")
            pool.putconn(connection)
        return 50

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 400
    assert way.tries <= 2


@pytest.mark.parametrize("how", ["a transaction", "closed", "lost"])
def test_what_comes_back_unfit_is_replaced(pool: Pool, way: Way, database: Database, how: str) -> None:
    connection = pool.getconn(1.0)
    if how == "a transaction":
        connection.execute("begin")
    elif how == "closed":
        connection.close()
    else:
        database.value("select pg_terminate_backend(%s, 5000)", connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select")
    pool.putconn(connection)
    after = pool.getconn(5.0)
    assert after.execute("select 1").fetchone() == (1,)
    assert connection.closed
    assert way.tries == 2
    pool.putconn(after)


def test_an_old_connection_is_not_lent_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pool.getconn()
    monkeypatch.setattr(stock, "LIFETIME", -1.0)
    pool.putconn(first)
    assert first.closed


def test_a_connection_that_nobody_needs_is_closed_by_those_who_use_others(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pool.getconn(), pool.getconn()
    pool.putconn(one)
    monkeypatch.setattr(stock, "UNUSED", -1.0)
    pool.putconn(other)
    assert one.closed
    assert pool.getconn() is other


def test_draining_lets_go_of_those_that_are_lent_too(pool: Pool) -> None:
    kept, used = pool.getconn(1.0), pool.getconn(1.0)
    pool.putconn(kept)
    pool.drain()
    assert [kept.closed, used.closed] == [True, False]
    pool.putconn(used)
    assert used.closed
    assert pool.getconn(5.0) not in {kept, used}


def test_closing_leaves_nothing_open_not_even_what_comes_back_afterwards(pool: Pool, database: Database) -> None:
    kept, used = pool.getconn(1.0), pool.getconn(1.0)
    pool.putconn(kept)
    pool.close()
    pool.putconn(used)
    assert kept.closed
    assert used.closed
    with pytest.raises(PoolClosed):
        pool.getconn(0.1)
    until(lambda: database.value(CONNECTIONS) == 0, what="the end of the connections")


def test_whoever_waits_when_the_pool_is_closed_is_told(pool: Pool) -> None:
    _held = [pool.getconn(1.0), pool.getconn(1.0)]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.getconn, 30.0)
        until(lambda: pool._waiting)
        pool.close()
        with pytest.raises(PoolClosed):
            waiting.result(60)


def test_a_server_that_was_never_reached_is_not_waited_for(pool: Pool, way: Way) -> None:
    way.away = True
    with pytest.raises(psycopg.OperationalError, match="refused"):
        pool.getconn(30.0)
    assert way.tries == 1
    way.away = False
    assert {pool.getconn(1.0), pool.getconn(1.0)}  # no place was lost


def test_a_server_that_was_there_is_tried_until_it_is_back(pool: Pool, way: Way) -> None:
    way.away = way.patient = True
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.getconn, 30.0)
        until(lambda: way.tries > 2)
        way.away = False
        assert waiting.result(60).execute("select 1").fetchone() == (1,)


def test_a_server_that_does_not_come_back_is_given_up_in_time(pool: Pool, way: Way) -> None:
    way.away = way.patient = True
    with pytest.raises(PoolTimeout, match="refused"):
        pool.getconn(0.2)
    way.away = False
    assert {pool.getconn(1.0), pool.getconn(1.0)}


def test_a_pool_that_nobody_has_any_more_leaves_no_connection(way: Way, database: Database) -> None:
    made = Pool(way.connect, most=2, timeout=5.0, patient=lambda: False)
    made.putconn(made.getconn())
    del made
    gc.collect()
    until(lambda: database.value(CONNECTIONS) == 0, what="the end of the connection")


# On an event loop: the same account, other waits.


async def _cancelled(pool: AsyncPool) -> None:
    task = asyncio.create_task(pool.getconn(30.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _late(pool: AsyncPool) -> None:
    with pytest.raises(PoolTimeout):
        await pool.getconn(0.05)


@pytest.mark.parametrize("gives_up", [_cancelled, _late])
def test_who_gives_up_waiting_on_a_loop_takes_nothing_along(way: Way, gives_up: Callable[[AsyncPool], Any]) -> None:
    async def main() -> None:
        pool = AsyncPool(way.aconnect, most=1, timeout=5.0, patient=lambda: False)
        held = await pool.getconn()
        await gives_up(pool)
        waiting = asyncio.create_task(pool.getconn(30.0))
        await asyncio.sleep(0)
        pool.putconn(held)
        assert await waiting is held
        pool.putconn(held)
        pool.drain()
        assert held.closed
        await gives_up(pool) if gives_up is _cancelled else None  # while it makes one
        async with pool.connection(30.0) as other:
            assert not other.closed
        pool.close()
        assert other.closed

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 25
