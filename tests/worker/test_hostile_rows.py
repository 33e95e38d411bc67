"""Rows that no `enqueue` has written, as by a producer's role that went astray.

What nobody could make a job of is refused by the tables; the rest fails, each for itself, and all others go on.
"""

from __future__ import annotations

from contextlib import closing
from typing import LiteralString

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.cli import main
from tests.storage.backstage import OnPostgres
from tests.storage.database import Database
from tests.storage.workers import claim, rescue, run, worker
from tests.storage.workers import ended as result
from tests.support.looking import get
from tests.support.waiting import ended, until
from tests.worker.conftest import Events, Start

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


DEEPEST = 12_000
"""Deeper than Python reads, whichever, and not too deep for PostgreSQL."""
DEEP = f'{{"n": {"[" * DEEPEST}{"]" * DEEPEST}}}'
LONG = '{"n": ' + "9" * 10_000 + "}"
BODY = "insert into dbjobq.job (queue, priority, max_retries, id, type, data"
PLACE = "insert into dbjobq.scheduled (enqueued, queue, priority, job_id, run_at) values (1, 1, 5, gen_random_uuid(), "
HOSTILE: dict[str, LiteralString] = {
    "a list": BODY + ") values (1, 5, 3, gen_random_uuid(), 'f', '[1]')",
    "a string": BODY + ") values (1, 5, 3, gen_random_uuid(), 'f', '\"os.system\"')",
    "a number": BODY + ") values (1, 5, 3, gen_random_uuid(), 'f', '1')",
    "null": BODY + ") values (1, 5, 3, gen_random_uuid(), 'f', 'null')",
    "100 MB": BODY
    + """) values (1, 5, 3, gen_random_uuid(), 'f', ('{"n": "' || repeat('x', 100000000) || '"}')::json)""",
    "no type": BODY + ") values (1, 5, 3, gen_random_uuid(), '', '{}')",
    "a long type": BODY + ") values (1, 5, 3, gen_random_uuid(), repeat('x', 1000000), '{}')",
    "created never": BODY + ", created_at) values (1, 5, 3, gen_random_uuid(), 'f', '{}', 'infinity')",
    "created ever": BODY + ", created_at) values (1, 5, 3, gen_random_uuid(), 'f', '{}', '-infinity')",
    "for the end of time": BODY + ", execute_at) values (1, 5, 3, gen_random_uuid(), 'f', '{}', 'infinity')",
    "for the year 20000": BODY + ", execute_at) values (1, 5, 3, gen_random_uuid(), 'f', '{}', '20000-01-01')",
    "for 40 BC": BODY + ", execute_at) values (1, 5, 3, gen_random_uuid(), 'f', '{}', '0040-01-01 BC')",
    "no time": BODY + ", timeout) values (1, 5, 3, gen_random_uuid(), 'f', '{}', 0)",
    "less than no time": BODY + ", timeout) values (1, 5, 3, gen_random_uuid(), 'f', '{}', -1)",
    "NaN seconds": BODY + ", timeout) values (1, 5, 3, gen_random_uuid(), 'f', '{}', 'NaN')",
    "all the time": BODY + ", timeout) values (1, 5, 3, gen_random_uuid(), 'f', '{}', 'infinity')",
    "due never": PLACE + "'infinity')",
    "due ever": PLACE + "'-infinity')",
    "due after the calendar": PLACE + "'20000-01-01')",
    "attempts beyond counting": "insert into dbjobq.ready (position, queue, priority, attempts, job_id) values"
    " (1, 1, 5, 2147483647, gen_random_uuid())",
    "attempts below zero": "insert into dbjobq.ready (position, queue, priority, attempts, job_id) values"
    " (1, 1, 5, -1, gen_random_uuid())",
}


@pytest.mark.parametrize("row", HOSTILE.values(), ids=HOSTILE)
def test_a_row_that_nobody_could_make_a_job_of_is_refused(database: Database, row: LiteralString) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        database.rows(row)


def test_what_json_does_not_have_is_refused(database: Database) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        database.rows(ROW, 1, 0, "f", '{"a": NaN}')


@pytest.mark.parametrize("kind", ["hostile.sync", "hostile.async"])
@pytest.mark.parametrize(
    "data", ["[1]", '"os.system"', "null", "1", "[" * DEEPEST + "]" * DEEPEST, DEEP, LONG], ids=len
)
def test_data_that_are_no_arguments_fail_the_job_and_nothing_else(
    start: Start, queue: JobQueue, database: Database, kind: str, data: str
) -> None:
    """Workers and readers do not rely on the table's check alone."""
    database.rows("alter table dbjobq.job drop constraint job_data_check")
    database.rows(ROW, 1, 0, kind, data)
    (waiting,) = queue.list_jobs()
    assert (waiting.data, waiting.status) == ({}, "pending")
    assert waiting.error is not None
    assert waiting.error.startswith("its data ")
    start()
    good = queue.enqueue(sync)
    ended(queue, [good])
    (failed,) = until(lambda: queue.list_jobs("failed"))
    found = queue.get_job(failed.id)
    assert found == failed
    assert failed.error is not None
    assert "\n" in failed.error  # what readers say, and what the worker said
    assert {job.id for job in queue.list_jobs()} == {good, failed.id}


@pytest.mark.parametrize("data", ["[1]", "null", DEEP, LONG], ids=len)
def test_dequeue_fails_data_that_are_no_arguments_and_gives_the_next_job(
    queue: JobQueue, database: Database, data: str
) -> None:
    database.rows("alter table dbjobq.job drop constraint job_data_check")
    database.rows(ROW, 1, 0, "hostile.sync", data)
    good = queue.enqueue(sync, n=1)
    found = queue.dequeue()
    assert found is not None
    assert (found.id, found.data) == (good, {"n": 1})
    queue.execute_job(found)
    assert queue.dequeue() is None
    (failed,) = queue.list_jobs("failed")
    assert failed.error is not None


def test_the_command_line_lists_what_cannot_be_read(
    queue: JobQueue, database: Database, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database.rows(ROW, 1, 0, "hostile.sync", DEEP)
    bad, good = str(database.value("select id from dbjobq.job")), queue.enqueue(sync)
    main(["jobs", "list", "--dsn", dsn], standalone_mode=False)
    said = capsys.readouterr().out
    assert good in said
    assert bad in said
    main(["jobs", "show", bad, "--dsn", dsn], standalone_mode=False)
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("priority", [2**31 - 1, -(2**31)])
def test_any_priority_is_one(start: Start, queue: JobQueue, database: Database, priority: int) -> None:
    database.rows(ROW, 1, 0, "hostile.sync", "{}")
    database.rows("update dbjobq.job set priority = %s", priority)
    database.rows("update dbjobq.ready set priority = %s", priority)
    start()
    ended(queue, [queue.enqueue(sync)])
    until(lambda: queue.stats()["completed"] == 2)
    assert {job.priority for job in queue.list_jobs()} == {5, priority}


@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.run", "'; drop table dbjobq.job; --", "tests.worker.test_hostile_rows.ROW"]
)
def test_a_type_that_is_no_job_is_never_called(start: Start, queue: JobQueue, database: Database, name: str) -> None:
    database.rows(ROW, 1, 0, name, '{"command": "false"}')
    start(imports=["tests.worker.test_hostile_rows"], unknown_within=0)
    ended(queue, [queue.enqueue(sync)])
    (failed,) = until(lambda: queue.list_jobs("failed"))
    assert failed.error is not None
    assert failed.error.startswith("UnknownJobType: ")


def test_a_body_of_a_queue_that_does_not_exist_stops_no_worker(
    start: Start, queue: JobQueue, database: Database
) -> None:
    database.rows(ROW, 999, 3, "hostile.sync", "{}")
    (listed,) = queue.list_jobs()
    assert listed.queue == "(no queue 999)"
    assert queue.get_job(listed.id) == listed
    start()
    ended(queue, [queue.enqueue(sync)])
    until(lambda: queue.stats()["completed"] == 2)


def test_a_negative_number_of_retries_is_none(start: Start, queue: JobQueue, database: Database) -> None:
    database.rows(ROW, 1, -5, "hostile.unknown", "{}")
    start(unknown_within=0)
    until(lambda: queue.stats()["failed"] == 1)


SECOND: dict[str, LiteralString] = {
    "ready": "insert into dbjobq.ready (position, queue, priority, job_id)"
    " select position, 1, 5, id from dbjobq.job where id = %s",
    "scheduled": "insert into dbjobq.scheduled (enqueued, queue, priority, job_id, run_at)"
    " select position, 1, 5, id, now() from dbjobq.job where id = %s",
}


@pytest.mark.parametrize("place", SECOND)
@pytest.mark.parametrize("ended_before", [True, False])
def test_a_job_in_two_places_is_left_in_one_and_the_worker_goes_on(
    start: Start, queue: JobQueue, database: Database, place: str, ended_before: bool
) -> None:
    first = queue.enqueue(sync, n=1)
    if ended_before:
        worker = start()
        ended(queue, [first])
        worker.stop()
    database.rows(SECOND[place], first)
    worker = start()
    ids = [queue.enqueue(sync) for _ in range(3)]
    ended(queue, [first, *ids])
    places = "select job_id from dbjobq.ready union all select job_id from dbjobq.scheduled union all"
    until(lambda: not database.rows(places + " select job_id from dbjobq.lease"))
    ended(queue, [queue.enqueue(sync)])
    assert worker.error is None
    assert queue.stats()["completed"] == 5


def test_a_place_without_a_job_is_passed_over(start: Start, queue: JobQueue, database: Database) -> None:
    database.rows("insert into dbjobq.ready (position, queue, priority, job_id) values (1, 1, 5, gen_random_uuid())")
    start()
    ended(queue, [queue.enqueue(sync)])


AS_HIGH_AS_CAN_BE = 1_000_000_000


@job(name="hostile.raises", retry=0.0)
async def raises() -> None:
    raise ValueError("again")


def test_a_job_with_more_attempts_than_can_be_counted_fails_and_the_worker_goes_on(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    """PostgreSQL refuses the place of its next attempt, and with it all that is written in the same statement."""
    full = queue.options(max_retries=2**31 - 1).enqueue(raises)
    database.rows("update dbjobq.ready set attempts = %s", AS_HIGH_AS_CAN_BE)
    others = [queue.enqueue(sync, n=number) for number in range(3)]
    start(concurrency=4)
    ended(queue, [full], "failed")
    ended(queue, [*others, queue.enqueue(asynchronous)])
    assert events.jobs("job.set_aside") == [full]
    error = get(queue, full).error or ""
    assert error.startswith("set aside: ")
    assert "ValueError: again" in error


def test_a_job_with_more_attempts_than_can_be_counted_holds_up_no_rescue(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    full, other = (queue.options(max_retries=2**31 - 1).enqueue(raises) for _ in range(2))
    database.rows("update dbjobq.ready set attempts = %s where job_id = %s", AS_HIGH_AS_CAN_BE, full)

    async def main() -> None:
        async with worker(storage, "dies") as session:
            assert len(await claim(session, 2)) == 2
        OnPostgres(database).kill("dies")
        assert {rescued.id: rescued.dead for rescued in rescue(storage)} == {full: True, other: False}

    run(main())


def test_a_job_in_two_places_holds_up_no_rescue(storage: PostgresStorage, queue: JobQueue, database: Database) -> None:
    twice, other = (queue.options(max_retries=0).enqueue(raises) for _ in range(2))

    async def main() -> None:
        async with worker(storage, "dies") as session:
            assert len(await claim(session, 2)) == 2
        database.rows("insert into dbjobq.done (attempts, status, job_id) values (0, 2, %s)", twice)
        OnPostgres(database).kill("dies")
        assert [rescued.id for rescued in rescue(storage)] == [other]

    run(main())


def test_a_result_that_cannot_be_written_for_a_blocked_loop_keeps_back_no_other(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    full, other = (queue.options(max_retries=2**31 - 1).enqueue(raises) for _ in range(2))
    database.rows("update dbjobq.ready set attempts = %s where job_id = %s", AS_HIGH_AS_CAN_BE, full)

    async def main() -> None:
        async with worker(storage) as session:
            held = await claim(session, 2)
            with closing(session.pulse()) as pulse:
                assert pulse.finish([result(it, "retry") for it in held]) == {full, other}

    run(main())
    assert [get(queue, job_id).status for job_id in (full, other)] == ["failed", "pending"]
