"""Rows that no `enqueue` has written, as by a producer's role that went astray: they fail, and the worker goes on."""

from __future__ import annotations

import pytest

from dbjobq import JobQueue, job
from tests.storage.database import Database
from tests.support.waiting import ended, until
from tests.worker.conftest import Start

ROW = """
    with body as (
        insert into dbjobq.job (queue, priority, max_retries, id, type, data)
        values (%s, 5, %s, gen_random_uuid(), %s, (%s)::json) returning id, position
    )
    insert into dbjobq.ready (position, queue, priority, job_id) select position, 1, 5, id from body
"""


@job(name="hostile.sync")
def sync(**arguments: object) -> int:
    return len(arguments)


@job(name="hostile.async")
async def asynchronous(**arguments: object) -> int:
    return len(arguments)


@pytest.mark.parametrize("kind", ["hostile.sync", "hostile.async"])
@pytest.mark.parametrize(
    "data", ["[1]", '"os.system"', "null", "1", "[" * 3000 + "]" * 3000, '{"n": ' + "9" * 10_000 + "}"], ids=len
)
def test_data_that_are_no_arguments_fail_the_job_and_nothing_else(
    start: Start, queue: JobQueue, database: Database, kind: str, data: str
) -> None:
    database.rows(ROW, 1, 0, kind, data)
    start()
    ended(queue, [queue.enqueue(sync)])
    assert until(
        lambda: database.rows("select status from dbjobq.done where job_id in (select job_id from dbjobq.failure)")
    )
    assert queue.stats()["failed"] == 1


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.run", "", "'; drop table dbjobq.job; --", "tests.worker.test_hostile_rows.ROW"]
)
def test_a_type_that_is_no_job_is_never_called(start: Start, queue: JobQueue, database: Database, name: str) -> None:
    database.rows(ROW, 1, 0, name, '{"command": "false"}')
    start(imports=["tests.worker.test_hostile_rows"])
    ended(queue, [queue.enqueue(sync)])
    (failed,) = until(lambda: queue.list_jobs("failed"))
    assert failed.error is not None
    assert failed.error.startswith("UnknownJobType: ")


def test_a_body_of_a_queue_that_does_not_exist_stops_no_worker(
    start: Start, queue: JobQueue, database: Database
) -> None:
    database.rows(ROW, 999, 3, "hostile.sync", "{}")
    start()
    ended(queue, [queue.enqueue(sync)])
    until(lambda: queue.stats()["completed"] == 2)


def test_a_negative_number_of_retries_is_none(start: Start, queue: JobQueue, database: Database) -> None:
    database.rows(ROW, 1, -5, "hostile.unknown", "{}")
    start()
    until(lambda: queue.stats()["failed"] == 1)
