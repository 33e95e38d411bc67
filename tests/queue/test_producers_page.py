"""The page on enqueueing, docs/producers.md: its Python blocks run as they stand, and what they promise holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dbjobq import Worker
from tests.storage.database import Database
from tests.support.faultproxy import FaultProxy, proxied
from tests.support.page import python_blocks
from tests.support.waiting import ended, until


@pytest.fixture
def proxy(dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The way on which the page's code reaches its database."""
    database.rows("create table orders (id int primary key)")
    database.rows("create table batch (name text primary key)")
    proxy, through = proxied(dsn)
    monkeypatch.setenv("DBJOBQ_DSN", through)
    with proxy:
        yield proxy


@pytest.fixture
def page(proxy: FaultProxy) -> Iterator[dict[str, Any]]:
    """The names that the page's blocks leave, one after the other."""
    names: dict[str, Any] = {"__name__": "producers_page"}
    for block in python_blocks("docs/producers.md"):
        exec(compile(block, "docs/producers.md", "exec"), names)
    yield names
    names["queue"].close()


def orders(database: Database) -> list[int]:
    """Of the receipts that are to be sent."""
    return [row[0] for row in database.rows("select (data->>'order')::int from dbjobq.job order by 1")]


def test_the_examples_run_as_they_stand(page: dict[str, Any], database: Database) -> None:
    assert orders(database) == list(range(100, 120))  # those of the event loop
    assert database.value("select count(*) from orders") == 20
    page["place_order"](17)
    assert orders(database) == [17, *range(100, 120)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        page["place_order"](17)
    assert orders(database).count(17) == 1


def test_a_receipt_is_sent_once_however_often_it_is_asked_for(
    page: dict[str, Any], proxy: FaultProxy, database: Database
) -> None:
    for lost in (0, 1, 4):  # a repeat inside the call, and one of the page's own
        proxy.break_off(*[0] * lost)
        until(lambda: _asked(page))
    assert orders(database).count(17) == 1
    with Worker(page["queue"]):
        ended(page["queue"], [page["enqueue_receipt"](17)])
    page["enqueue_receipt"](17)
    assert orders(database).count(17) == 1


def _asked(page: dict[str, Any]) -> bool:
    try:
        page["enqueue_receipt"](17)
    except page["StorageUnavailable"]:
        return False
    return True


def test_a_unique_key_gives_the_job_that_waits(page: dict[str, Any]) -> None:
    enqueue_digest, queue = page["enqueue_digest"], page["queue"]
    first = enqueue_digest("ada")
    assert enqueue_digest("ada") == first != enqueue_digest("grace")
    queue.cancel(first)
    assert enqueue_digest("ada") != first


def test_a_batch_that_is_made_again_is_there_once(page: dict[str, Any], database: Database) -> None:
    for _ in range(2):
        page["enqueue_receipts"]("monday", [1, 2, 3])
    assert orders(database)[:4] == [1, 2, 3, 100]
