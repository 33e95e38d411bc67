"""docs/queries.md: each query runs as it stands, and answers what its title asks."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from dbjobq import JobContext, JobQueue, PostgresStorage, Worker, job
from dbjobq.schema.roles import grant
from tests.storage.database import Database
from tests.support.page import ROOT
from tests.support.waiting import ended, until
from tests.worker.conftest import LASTING

TEXT = (ROOT / "docs/queries.md").read_text()
QUERIES: Final[dict[int, bytes]] = {
    int(number): query.encode()
    for number, query in re.findall(r"^## (\d+)\. .*?^```sql\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
}


@job(name="page.fails", retry=0)
def fails() -> None:
    raise RuntimeError("no luck\nat all")


@job(name="page.fails_once", retry=1000)
def fails_once() -> None:
    raise RuntimeError("not now")


@job(name="page.works")
def works() -> None: ...


@pytest.fixture
def ids(dsn: str) -> Iterator[dict[str, str]]:
    """A job in each state; by what it is."""
    go_on = threading.Event()

    @job(name="page.runs")
    def runs(ctx: JobContext) -> None:
        ctx.progress(1, 2)
        go_on.wait(LASTING)

    with JobQueue(PostgresStorage(dsn)) as queue:
        found = {
            "works": queue.enqueue(works),
            "fails": queue.enqueue(fails, max_retries=1),
            "retries": queue.enqueue(fails_once),
            "waits": queue.options(queue="nobody").enqueue(works),
            "later": queue.options(delay=100).enqueue(works),
        }
        with Worker(queue, queues="default", concurrency=2):
            found["runs"] = queue.enqueue(runs)
            ended(queue, [found["works"]])
            ended(queue, [found["fails"]], "failed")
            until(lambda: queue.get_progress(found["runs"]) and queue.list_jobs(type="page.fails_once")[0].error)
            yield found
            go_on.set()


def answers(database: Database, number: int) -> list[dict[str, Any]]:
    """The rows of a query of the page."""
    cursor = database.connection.execute(QUERIES[number])
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_there_are_ten() -> None:
    assert list(QUERIES) == list(range(1, 11))


def test_what_waits_runs_and_is_due_later(ids: dict[str, str], database: Database) -> None:
    (waits,) = answers(database, 1)
    assert (waits["queue"], waits["type"], waits["jobs"]) == ("nobody", "page.works", 1)
    (runs,) = answers(database, 2)
    assert (str(runs["job_id"]), runs["attempt"], runs["progress"]["done"]) == (ids["runs"], 1, 1)
    assert [(row["jobs"], row["of_them_retries"]) for row in answers(database, 3)] == [(1, 0), (1, 1)]
    (retries,) = answers(database, 4)
    assert (str(retries["job_id"]), retries["attempts"], retries["error"]) == (
        ids["retries"],
        "1 of 4",
        "RuntimeError: not now",
    )
    (worker,) = answers(database, 5)
    assert (worker["worker"], worker["jobs"], worker["alive"]) == (runs["worker"], 1, True)


def test_what_has_ended(ids: dict[str, str], database: Database) -> None:
    (failed,) = answers(database, 6)
    assert (failed["type"], failed["jobs"], failed["last_error"]) == ("page.fails", 1, "RuntimeError: no luck")
    (example,) = re.findall(rb"job_id = '(.*)'", QUERIES[7])
    errors = database.connection.execute(QUERIES[7].replace(example, ids["fails"].encode())).fetchall()
    assert [error.partition("\n")[0] for _, _, error in errors] == ["RuntimeError: no luck"] * 2
    (took,) = answers(database, 8)
    assert (took["type"], took["jobs"]) == ("page.works", 1)
    (minute, *_) = answers(database, 9)
    assert sum(row["ended"] for row in answers(database, 9)) == 2
    assert minute["failed"] <= 1


def test_only_what_is_old_is_deleted_with_all_that_belongs_to_it(ids: dict[str, str], database: Database) -> None:
    database.rows(
        "update dbjobq.done set finished_at = finished_at - interval '31 days' where job_id = %s", ids["fails"]
    )
    for left in (1, 0):
        assert database.connection.execute(QUERIES[10]).rowcount == left
    kept = {str(row[0]) for row in database.rows("select id from dbjobq.jobs")}
    assert kept == set(ids.values()) - {ids["fails"]}
    assert database.value("select count(*) from dbjobq.failure where job_id = %s", ids["fails"]) == 0


@pytest.fixture
def reader(dsn: str, database: Database) -> Iterator[sql.Identifier]:
    """A role of the kind `reader`."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    role = sql.Identifier(name)
    database.connection.execute(sql.SQL("create role {}").format(role))
    grant(name, "reader", dsn)
    yield role
    database.rows("reset role")
    database.connection.execute(sql.SQL("drop owned by {}; drop role {}").format(role, role))


def test_a_reader_may_run_all_but_the_last(database: Database, reader: sql.Identifier) -> None:
    database.connection.execute(sql.SQL("set role {}").format(reader))
    for number in range(1, 10):
        answers(database, number)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        answers(database, 10)
