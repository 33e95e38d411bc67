"""The pool for threads, and the connection that is kept out of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from dbjobq.storage import lender
from dbjobq.storage.lender import Lender
from tests.storage.database import Database
from tests.support.waiting import until

CONNECTIONS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'lent'"


@pytest.fixture
def pool(dsn: str) -> Iterator[ConnectionPool[psycopg.Connection[Any]]]:
    kwargs = {"autocommit": True, "application_name": "lent"}
    made: ConnectionPool[psycopg.Connection[Any]]
    made = ConnectionPool(dsn, kwargs=kwargs, open=True, min_size=1, max_size=2, timeout=5.0)
    with made:
        made.wait()
        yield made


@pytest.fixture
def lent(pool: ConnectionPool[psycopg.Connection[Any]]) -> Lender:
    return Lender(pool)


def asked(pool: ConnectionPool[Any]) -> int:
    """How often the pool itself was asked for a connection."""
    return pool.get_stats().get("requests_num", 0)


def test_calls_one_after_the_other_ask_the_pool_once(pool: ConnectionPool[Any], lent: Lender) -> None:
    first = lent.getconn(1.0)
    lent.putconn(first)
    for _ in range(10):
        connection = lent.getconn(1.0)
        assert connection is first
        lent.putconn(connection)
    assert asked(pool) == 1


def test_all_of_the_pools_connections_are_lent_and_no_more(lent: Lender) -> None:
    lent.putconn(lent.getconn(1.0))
    both = {lent.getconn(1.0), lent.getconn(1.0)}
    assert len(both) == 2
    with pytest.raises(PoolTimeout):
        lent.getconn(0.1)
    for connection in both:
        lent.putconn(connection)
    assert {lent.getconn(1.0), lent.getconn(1.0)} == both


def test_who_waits_for_a_connection_gets_the_first_that_comes_back(lent: Lender) -> None:
    held = [lent.getconn(1.0), lent.getconn(1.0)]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lent.getconn, 10.0)
        until(lambda: lent._asking)
        lent.putconn(held[0])
        assert waiting.result(5) is held[0]


def test_many_threads_share_few_connections_and_none_waits_in_vain(lent: Lender) -> None:
    by = time.monotonic() + 2.0

    def work(_: int) -> int:
        calls = 0
        while time.monotonic() < by:
            connection = lent.getconn(1.0)
            connection.execute("select")
            lent.putconn(connection)
            calls += 1
        return calls

    with ThreadPoolExecutor(8) as threads:
        assert min(threads.map(work, range(8))) > 0


@pytest.mark.parametrize("how", ["a transaction", "closed", "lost"])
def test_what_comes_back_unfit_is_left_to_the_pool(
    pool: ConnectionPool[Any], lent: Lender, database: Database, how: str
) -> None:
    connection = lent.getconn(1.0)
    if how == "a transaction":
        connection.execute("begin")
    elif how == "closed":
        connection.close()
    else:
        database.value("select pg_terminate_backend(%s, 5000)", connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select")
    lent.putconn(connection)
    after = lent.getconn(5.0)
    assert after.execute("select 1").fetchone() == (1,)
    assert asked(pool) == 2
    lent.putconn(after)


def test_it_is_kept_for_a_while_so_that_the_pool_sees_how_old_it_is(
    pool: ConnectionPool[Any], lent: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lender, "LONGEST", 0.2)
    by, calls = time.monotonic() + 1.0, 0
    while time.monotonic() < by:
        lent.putconn(lent.getconn(1.0))
        calls += 1
    assert 4 <= asked(pool) < calls


def test_draining_lets_go_of_it_too(lent: Lender) -> None:
    first = lent.getconn(1.0)
    lent.putconn(first)
    lent.drain()
    assert first.closed
    second = lent.getconn(5.0)
    assert second is not first
    lent.putconn(second)


def test_closing_leaves_nothing_open_not_even_what_comes_back_afterwards(lent: Lender, database: Database) -> None:
    kept, used = lent.getconn(1.0), lent.getconn(1.0)
    lent.putconn(kept)
    lent.close()
    lent.putconn(used)
    assert kept.closed
    assert used.closed
    with pytest.raises(PoolClosed):
        lent.getconn(0.1)
    until(lambda: database.value(CONNECTIONS) == 0, what="the end of the connections")
