"""Jobs worked on by hand: dequeue, complete, fail, retry, cancel, execute_job."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbjobq import (
    AsyncJobQueue,
    BaseStorage,
    Job,
    JobNotFound,
    JobQueue,
    LeaseLost,
    NotSupported,
    PostgresStorage,
    StorageUnavailable,
)
from dbjobq.storage.base import JobFilter
from dbjobq.storage.values import Bounds
from tests.queue import jobs
from tests.support.storages import storage_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

    Rescue = Callable[[], list[str]]

pytestmark = pytest.mark.every_storage


def claimed(queue: JobQueue, name: str = "default", lease: float = 300.0) -> Job:
    job = queue.dequeue(name, lease)
    assert job is not None
    return job


def stored(queue: JobQueue, job: Job | str) -> Job:
    found = queue.get_job(job if isinstance(job, str) else job.id)
    assert found is not None
    return found


def test_an_empty_queue_gives_nothing(queue: JobQueue) -> None:
    assert queue.dequeue() is None
    assert queue.dequeue("never heard of") is None


def test_dequeue_gives_the_job_as_it_is_stored(queue: JobQueue) -> None:
    queue.enqueue(jobs.report, year=2026, priority=-7)
    job = claimed(queue, "reports")
    seen = stored(queue, job)
    assert seen == job
    assert job.status == "running"
    assert job.started_at is not None
    assert job.created_at is not None
    assert job.created_at <= job.started_at
    assert seen.worker_id


def test_a_job_is_completed_by_the_job_or_by_its_id(queue: JobQueue) -> None:
    one, two, three = (queue.enqueue(jobs.anything, n=n) for n in range(3))
    queue.complete(claimed(queue))
    claimed(queue)
    queue.complete(two)
    queue.complete(Job.from_dict(dataclasses.asdict(claimed(queue))))
    assert [job.id for job in queue.get_completed_jobs()] == [three, two, one]
    job = stored(queue, one)
    assert job.finished_at is not None
    assert job.started_at is not None
    assert job.started_at <= job.finished_at
    assert job.updated_at == job.finished_at
    assert (job.attempts, job.error, job.result) == (0, None, None)


def test_an_id_may_be_given_in_any_form(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    claimed(queue)
    queue.complete(one.upper().replace("-", ""))
    assert stored(queue, one.upper()).status == "completed"


def test_a_result_is_kept(queue: JobQueue) -> None:
    result = {"a": [1, 2.5, None, True], "text": "\x00 \ud800 é"}
    one = queue.enqueue(jobs.anything)
    queue.complete(claimed(queue), result)
    assert stored(queue, one).result == result


@pytest.mark.parametrize("result", [0, False, "", [], {}, "null"])
def test_a_result_that_is_false_is_a_result(queue: JobQueue, result: Any) -> None:
    one = queue.enqueue(jobs.anything)
    queue.complete(claimed(queue), result)
    found = stored(queue, one).result
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    "result",
    [object(), float("nan"), b"x", {1, 2}, "x" * (33 << 20), 10**5000],
    ids=["object", "nan", "bytes", "set", "big", "int"],
)
def test_a_result_that_cannot_be_stored_does_not_fail_the_job(queue: JobQueue, result: Any) -> None:
    one = queue.enqueue(jobs.anything)
    queue.complete(claimed(queue), result)
    job = stored(queue, one)
    assert (job.status, job.result) == ("completed", None)
    assert job.error is not None
    assert "result" in job.error


def test_a_failed_attempt_waits_for_its_retry_delay(queue: JobQueue, backstage: Backstage) -> None:
    one = queue.enqueue(jobs.anything, max_retries=3)
    for attempt, wait in enumerate([2, 4, 8], 1):
        job = claimed(queue)
        assert job.attempts == attempt - 1
        queue.fail(job, f"ConnectionError: {attempt}")
        job = stored(queue, one)
        assert (job.status, job.attempts, job.error) == ("pending", attempt, f"ConnectionError: {attempt}")
        due = backstage.due_in()
        assert due is not None
        assert wait - 1.9 < due <= wait * 1.1
        assert queue.dequeue() is None
        backstage.skip(wait * 1.1)
    queue.fail(claimed(queue), "the last")
    job = stored(queue, one)
    assert (job.status, job.attempts, job.error) == ("failed", 4, "the last")
    assert job.finished_at is not None
    assert queue.get_failed_jobs() == [job]


def test_without_retries_the_first_failure_is_the_last(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything, max_retries=0)
    claimed(queue)
    queue.fail(one, ValueError("no"))
    job = stored(queue, one)
    assert (job.status, job.attempts) == ("failed", 1)
    assert job.error is not None
    assert job.error.startswith("ValueError: no")


@pytest.mark.parametrize("error", ["", "NUL \x00, surrogate \ud800", "\\N \\. %s", "x" * 1_000_000])
def test_any_error_text_can_be_stored(queue: JobQueue, error: str) -> None:
    one = queue.enqueue(jobs.anything, max_retries=0)
    queue.fail(claimed(queue), error)
    job = stored(queue, one)
    assert job.status == "failed"
    assert job.error is not None
    assert error[-100:].isprintable() is False or job.error.endswith(error[-100:])


def test_a_job_ends_once(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    job = claimed(queue)
    queue.complete(job, "first")
    calls: list[Callable[[], None]] = [
        lambda: queue.complete(job, "second"),
        lambda: queue.fail(job, "x"),
        lambda: queue.complete(one),
    ]
    for again in calls:
        with pytest.raises(LeaseLost) as caught:
            again()
        assert caught.value.job_id == one
    found = stored(queue, one)
    assert (found.status, found.result, found.error) == ("completed", "first", None)


def test_a_job_that_was_not_dequeued_here_is_not_held(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    with pytest.raises(LeaseLost, match=one):
        queue.complete(one)
    with pytest.raises(LeaseLost, match=one):
        queue.fail(stored(queue, one), "x")
    assert stored(queue, one).status == "pending"


def test_a_claim_of_another_process_is_not_held_here(queue: JobQueue, address: str) -> None:
    one = queue.enqueue(jobs.anything)
    with storage_at(address) as other:
        job = JobQueue(other).dequeue()
        assert job is not None
        with pytest.raises(LeaseLost):
            queue.complete(one)
        JobQueue(other).complete(one)


def test_a_stale_claim_is_refused_and_writes_nothing(queue: JobQueue, backstage: Backstage, rescued: Rescue) -> None:
    one = queue.enqueue(jobs.anything)
    stale = claimed(queue, lease=10)
    assert rescued() == []
    backstage.skip(11)
    assert rescued() == [one]
    assert rescued() == []
    fresh = claimed(queue)
    assert (fresh.id, fresh.attempts) == (one, 1)
    with pytest.raises(LeaseLost):
        queue.complete(stale, "late")
    with pytest.raises(LeaseLost):
        queue.fail(stale, "late")
    found = stored(queue, one)
    assert (found.status, found.attempts) == ("running", 1)
    assert found.error is not None
    assert "WorkerLost" in found.error
    queue.complete(one, "in time")  # by id: the claim that this process holds now
    assert stored(queue, one).result == "in time"


def test_a_stale_claim_is_refused_while_the_job_waits_again(
    queue: JobQueue, backstage: Backstage, rescued: Rescue
) -> None:
    one = queue.enqueue(jobs.anything)
    stale = claimed(queue, lease=10)
    backstage.skip(11)
    rescued()
    with pytest.raises(LeaseLost):
        queue.complete(stale)
    assert stored(queue, one).status == "pending"


def test_a_lease_that_ran_out_but_was_not_rescued_may_still_be_finished(queue: JobQueue, backstage: Backstage) -> None:
    one = queue.enqueue(jobs.anything)
    job = claimed(queue, lease=10)
    backstage.skip(11)
    queue.complete(job)
    assert stored(queue, one).status == "completed"


@pytest.mark.parametrize(
    "unknown", [str(uuid.UUID(int=7)), "", "nonsense", "\x00", "' or true --", "\ud800"], ids=ascii
)
def test_an_unknown_id_is_not_found(queue: JobQueue, unknown: str) -> None:
    queue.enqueue(jobs.anything)
    assert queue.get_job(unknown) is None
    for call in (queue.cancel, queue.retry):
        with pytest.raises(JobNotFound) as caught:
            call(unknown)
        assert caught.value.job_id == unknown
    with pytest.raises((JobNotFound, LeaseLost)):
        queue.complete(unknown)
    assert queue.count("pending") == 1


@pytest.mark.parametrize("wrong", [None, 5, b"x", ["id"]])
def test_an_id_of_the_wrong_type_is_a_type_error(queue: JobQueue, wrong: Any) -> None:
    for call in (queue.get_job, queue.cancel, queue.retry, queue.complete):
        with pytest.raises(TypeError):
            call(wrong)
    with pytest.raises(TypeError):
        queue.fail(wrong, "x")


# Retry.


def test_retry_revives_a_failed_job_with_its_attempts_from_0(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything, n=1, max_retries=0)
    queue.fail(claimed(queue), "x")
    assert queue.retry(one) is True
    job = stored(queue, one)
    assert (job.status, job.attempts, job.finished_at) == ("pending", 0, None)
    again = claimed(queue)
    assert (again.id, again.attempts, again.data) == (one, 0, {"n": 1})
    queue.complete(again)
    assert stored(queue, one).status == "completed"


def test_retry_revives_a_cancelled_job(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    queue.cancel(one)
    assert queue.retry(one) is True
    assert claimed(queue).id == one


def test_retry_takes_a_delay(queue: JobQueue, backstage: Backstage) -> None:
    one = queue.enqueue(jobs.anything)
    queue.cancel(one)
    assert queue.retry(one, 60) is True
    assert queue.dequeue() is None
    job = stored(queue, one)
    assert job.execute_at is not None
    assert timedelta(seconds=50) < job.execute_at - datetime.now(UTC) < timedelta(seconds=70)
    backstage.skip(61)
    assert claimed(queue).id == one


def test_retry_leaves_other_jobs_as_they_are(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    assert queue.retry(one) is False
    job = claimed(queue)
    assert queue.retry(one) is False
    queue.complete(job, 1)
    assert queue.retry(one) is False
    assert (stored(queue, one).status, stored(queue, one).result, queue.count()) == ("completed", 1, 1)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e12])
def test_retry_refuses_a_delay_out_of_range(queue: JobQueue, delay: float) -> None:
    one = queue.enqueue(jobs.anything)
    queue.cancel(one)
    with pytest.raises(ValueError, match="delay_seconds"):
        queue.retry(one, delay)
    assert stored(queue, one).status == "cancelled"


# Cancel.


def test_a_pending_job_is_cancelled(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    assert queue.cancel(one) is True
    assert queue.cancel(one) is False
    job = stored(queue, one)
    assert job.status == "cancelled"
    assert job.finished_at is not None
    assert queue.dequeue() is None


def test_a_scheduled_job_is_cancelled(queue: JobQueue, backstage: Backstage) -> None:
    one = queue.options(delay=10).enqueue(jobs.anything)
    assert queue.cancel(one) is True
    backstage.skip(11)
    assert queue.dequeue() is None
    assert stored(queue, one).status == "cancelled"


def test_a_running_job_is_cancelled_at_once_and_its_result_refused(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything)
    job = claimed(queue)
    assert queue.cancel(one) is True
    assert stored(queue, one).status == "cancelled"
    with pytest.raises(LeaseLost):
        queue.complete(job)
    assert stored(queue, one).status == "cancelled"


def test_a_job_that_came_back_is_cancelled(queue: JobQueue, backstage: Backstage, rescued: Rescue) -> None:
    due = queue.options(delay=5).enqueue(jobs.anything)
    back = queue.enqueue(jobs.anything)
    claimed(queue, lease=10)
    backstage.skip(11)
    assert rescued() == [back]
    queue.dequeue("another")  # moves what is due
    assert queue.cancel(due) is True
    assert queue.cancel(back) is True
    assert queue.dequeue() is None
    assert [stored(queue, i).status for i in (due, back)] == ["cancelled"] * 2
    assert stored(queue, back).attempts == 1


def test_a_job_that_has_ended_is_not_cancelled(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything, max_retries=0)
    two = queue.enqueue(jobs.anything)
    queue.fail(claimed(queue), "x")
    queue.complete(claimed(queue))
    assert queue.cancel(one) is False
    assert queue.cancel(two) is False
    assert (stored(queue, one).status, stored(queue, two).status) == ("failed", "completed")


def test_only_the_job_named_is_cancelled(queue: JobQueue) -> None:
    ids = [queue.enqueue(jobs.anything, n=n) for n in range(3)]
    queue.cancel(ids[1])
    assert [claimed(queue).id, claimed(queue).id] == [ids[0], ids[2]]


# Execute.


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (jobs.report, {"year": 3}, 3),
        (jobs.gather, {"year": 3}, 4),
        (jobs.send_email, {"to": "a", "subject": "b"}, "a: b"),
    ],
    ids=["def", "async def", "undecorated"],
)
def test_execute_job_runs_the_function_and_records_its_result(
    queue: JobQueue, function: Callable[..., Any], arguments: dict[str, Any], result: Any
) -> None:
    one = queue.options(queue="q").enqueue(function, **arguments)
    queue.execute_job(claimed(queue, "q"))
    job = stored(queue, one)
    assert (job.status, job.result, job.error) == ("completed", result, None)


@pytest.mark.parametrize("function", [jobs.crash, jobs.acrash], ids=["def", "async def"])
def test_execute_job_records_a_failure_and_does_not_raise_it(queue: JobQueue, function: Callable[..., Any]) -> None:
    one = queue.enqueue(function, why="the reason")
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert (job.status, job.attempts) == ("pending", 1)
    assert job.error is not None
    assert job.error.startswith("LookupError: the reason\n")
    assert "Traceback" in job.error
    assert "raise LookupError(why)" in job.error
    assert "dbjobq/queue/queues.py" not in job.error


@pytest.mark.parametrize(
    ("function", "status", "low", "high", "says"),
    [
        (jobs.postpone, "pending", 990, 1000, "not yet"),
        (jobs.every_minute, "pending", 50, 66, "again"),
        (jobs.give_up, "failed", 0, 0, "pointless"),
        (jobs.never_again, "failed", 0, 0, "KeyError"),
    ],
)
def test_the_function_and_its_type_decide_about_a_retry(  # noqa: PLR0917 - fixtures and parameters
    queue: JobQueue, backstage: Backstage, function: Callable[..., Any], status: str, low: float, high: float, says: str
) -> None:
    one = queue.enqueue(function)
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert (job.status, job.attempts) == (status, 1)
    assert job.error is not None
    assert says in job.error
    due = backstage.due_in()
    assert (low <= due <= high) if due is not None else status == "failed"


def test_fail_follows_the_policy_of_the_job_type(queue: JobQueue, backstage: Backstage) -> None:
    queue.enqueue(jobs.every_minute)
    queue.fail(claimed(queue), "x")
    due = backstage.due_in()
    assert due is not None
    assert due > 50


def test_execute_job_records_that_the_type_is_unknown(queue: JobQueue) -> None:
    one = queue.enqueue("os.system", command="touch /tmp/owned")
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert job.status in {"pending", "failed"}
    assert job.error is not None
    assert "os.system" in job.error
    assert "@job" in job.error


def test_execute_job_records_arguments_that_do_not_fit(queue: JobQueue) -> None:
    one = queue.enqueue("tests.queue.jobs.crash", wrong=1, max_retries=0)
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert job.status == "failed"
    assert job.error is not None
    assert "TypeError" in job.error
    assert "wrong" in job.error


def test_execute_job_keeps_a_job_completed_whose_result_cannot_be_stored(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.unspeakable)
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert (job.status, job.result) == ("completed", None)
    assert job.error is not None
    assert "object" in job.error


def test_a_function_that_calls_exit_has_failed(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.leave, max_retries=0)
    with suppress(SystemExit):
        queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert job.status == "failed"
    assert job.error is not None
    assert "SystemExit" in job.error


@pytest.mark.parametrize("function", [jobs.look, jobs.alook], ids=["def", "async def"])
def test_the_context_is_filled_in(queue: JobQueue, function: Callable[..., Any]) -> None:
    one = queue.enqueue(function, word="w")
    queue.execute_job(claimed(queue))
    kind = "JobQueue" if function is jobs.look else "AsyncJobQueue"
    assert stored(queue, one).result == [one, "w", kind]


def test_a_lease_lost_by_a_call_of_the_function_is_the_functions_failure(queue: JobQueue) -> None:
    other = queue.options(queue="x").enqueue(jobs.anything)
    one = queue.enqueue(jobs.finish_another, other=other, max_retries=0)
    queue.execute_job(claimed(queue))
    job = stored(queue, one)
    assert job.status == "failed"
    assert job.error is not None
    assert "LeaseLost" in job.error


def test_execute_job_says_that_the_lease_was_lost(queue: JobQueue, backstage: Backstage, rescued: Rescue) -> None:
    one = queue.enqueue(jobs.gather, year=1)
    job = claimed(queue, lease=10)
    backstage.skip(11)
    rescued()
    with pytest.raises(LeaseLost):
        queue.execute_job(job)
    assert stored(queue, one).status == "pending"


TRANSACTIONAL = pytest.mark.parametrize("function", [jobs.note, jobs.anote], ids=["def", "async def"])


@TRANSACTIONAL
def test_a_transactional_job_commits_its_writes_with_its_completion(
    queue: JobQueue, database: Database, function: Callable[..., Any]
) -> None:
    database.rows("create table note (text text)")
    one = queue.enqueue(function, text="hello")
    queue.execute_job(claimed(queue))
    assert database.rows("select text from note") == [("hello",)]
    assert (stored(queue, one).status, stored(queue, one).result) == ("completed", "hello")


@TRANSACTIONAL
def test_a_transactional_job_that_fails_has_written_nothing(
    queue: JobQueue, database: Database, function: Callable[..., Any]
) -> None:
    database.rows("create table note (text text)")
    one = queue.enqueue(function, text="hello", fail=True)
    queue.execute_job(claimed(queue))
    assert database.rows("select text from note") == []
    job = stored(queue, one)
    assert (job.status, job.attempts) == ("pending", 1)
    assert job.error is not None
    assert "ValueError: hello" in job.error


@TRANSACTIONAL
def test_a_transactional_job_whose_lease_was_lost_has_written_nothing(
    queue: JobQueue, database: Database, backstage: Backstage, rescued: Rescue, function: Callable[..., Any]
) -> None:
    database.rows("create table note (text text)")
    queue.enqueue(function, text="late")
    job = claimed(queue, lease=10)
    backstage.skip(11)
    rescued()
    with pytest.raises(LeaseLost):
        queue.execute_job(job)
    assert database.rows("select text from note") == []


@TRANSACTIONAL
def test_a_transactional_job_fails_for_good_where_there_are_no_such_transactions(
    function: Callable[..., Any], tmp_path: Path
) -> None:
    with storage_at(f"sqlite:///{tmp_path}/jobs.db") as storage, JobQueue(storage) as queue:
        one = queue.enqueue(function, text="hello")
        queue.execute_job(claimed(queue))
        job = stored(queue, one)
        assert (job.status, job.attempts) == ("failed", 1)
        assert (job.error or "").startswith(
            "NotSupported: SQLAlchemyStorage on SQLite does not support 'transactional'"
        )
        for wrong in (storage.transaction, storage.atransaction):
            with pytest.raises(NotSupported, match="SQLAlchemyStorage on SQLite"):
                wrong()


@TRANSACTIONAL
def test_a_database_that_does_not_answer_is_not_the_jobs_failure(
    databases: Any, dsn: str, function: Callable[..., Any]
) -> None:
    """It is an operating error: raised, and no attempt is charged."""
    with PostgresStorage(dsn, timeout=1, max_size=1) as storage, JobQueue(storage) as plain:
        one = plain.enqueue(function, text="x")
        job = claimed(plain)
        with storage.connections.connection():  # the only one there is
            if function is jobs.note:
                with pytest.raises(StorageUnavailable):
                    plain.execute_job(job)
        if function is jobs.anote:
            storage.connections.way.conninfo = "host=127.0.0.1 port=1"
            with pytest.raises(StorageUnavailable):
                plain.execute_job(job)
            storage.connections.way.conninfo = dsn
        assert (stored(plain, one).status, stored(plain, one).attempts) == ("running", 0)


# Look.


def test_jobs_are_listed_newest_first_and_counted(queue: JobQueue) -> None:
    completed, failed, running, cancelled, waiting = (
        queue.enqueue(jobs.anything, n=n, max_retries=0) for n in range(5)
    )
    later = queue.options(delay=60).enqueue(jobs.anything)
    queue.complete(claimed(queue))
    queue.fail(claimed(queue), "x")
    claimed(queue)
    queue.cancel(cancelled)
    everything = [later, waiting, cancelled, running, failed, completed]
    assert [job.id for job in queue.list_jobs()] == everything
    assert [job.id for job in queue.list_jobs(limit=2)] == everything[:2]
    assert queue.list_jobs(limit=0) == []
    assert [job.id for job in queue.get_pending_jobs()] == [later, waiting]
    assert [job.id for job in queue.get_running_jobs()] == [running]
    assert [job.id for job in queue.get_completed_jobs(limit=5)] == [completed]
    assert [job.id for job in queue.get_failed_jobs()] == [failed]
    assert [job.id for job in queue.list_jobs("cancelled")] == [cancelled]
    assert queue.list_jobs("pending", limit=1)[0].id == later
    stats = {"pending": 2, "running": 1, "completed": 1, "failed": 1, "cancelled": 1, "total": 6}
    assert queue.stats() == stats
    assert {status: queue.count(status) for status in stats if status != "total"} | {"total": queue.count()} == stats
    assert {job.id: job.status for job in queue.list_jobs()} == {
        job.id: job.status for status in stats if status != "total" for job in queue.list_jobs(status)
    }


def test_what_a_caller_does_to_a_job_does_not_reach_the_claim(queue: JobQueue) -> None:
    one = queue.enqueue(jobs.anything, n=[1])
    job = claimed(queue)
    job.attempts, job.max_retries, job.id = 99, 0, str(uuid.uuid4())
    queue.fail(job, "x")
    assert (stored(queue, one).status, stored(queue, one).attempts) == ("pending", 1)


def test_both_queues_can_share_a_storage(storage: BaseStorage) -> None:
    sync = JobQueue(storage)

    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            one = await queue.enqueue(jobs.anything)
            job = await asyncio.to_thread(sync.dequeue)
            assert job is not None
            await queue.complete(one)

    asyncio.run(main())
    asyncio.run(main())
    assert sync.stats()["completed"] == 2


# Look and act within bounds.

ANY: JobFilter = {"status": None, "queue": None, "type": None}
RARE: JobFilter = {"status": None, "queue": None, "type": "none.such"}
MAIL: JobFilter = {"status": "pending", "queue": "mail", "type": None}
FAILED: JobFilter = {"status": "failed", "queue": None, "type": None}


def test_a_look_says_that_it_searched_no_further(queue: JobQueue) -> None:
    ids = [queue.enqueue(jobs.anything, n=n) for n in range(5)][::-1]
    look = queue.storage.look
    assert look(9, Bounds(10, None), **ANY).run() == look(5, Bounds(5, None), **ANY).run()
    found = look(2, Bounds(3, None), **ANY).run()
    assert ([job.id for job in found.jobs], found.unsearched, found.cut) == (ids[:2], False, False)
    found = look(9, Bounds(3, None), **ANY).run()
    assert ([job.id for job in found.jobs], found.unsearched, found.cut) == (ids[:3], True, False)
    found = look(9, Bounds(3, None), **RARE).run()
    assert found == ([], True, False)


def test_a_look_brings_no_arguments_or_as_many_as_it_may(queue: JobQueue) -> None:
    ids = [queue.enqueue(jobs.anything, n=str(n) * 1000) for n in range(5)][::-1]
    brief = queue.storage.look(9, Bounds(99, None), **ANY).run()
    assert [job.data for job in brief.jobs] == [{}] * 5
    for size, number in ((1, 1), (1000, 1), (2500, 3), (1_000_000, 5)):
        found = queue.storage.look(9, Bounds(99, size), **ANY).run()
        assert ([job.id for job in found.jobs], found.cut) == (ids[:number], number < 5)
        assert len(found.jobs[0].data["n"]) == 1000


def test_a_glance_counts_as_the_counts_do(queue: JobQueue) -> None:
    queue.enqueue(jobs.anything)
    queue.enqueue(jobs.anything, max_retries=0)
    queue.options(queue="mail", delay=60).enqueue(jobs.anything)
    queue.options(queue="mail", priority=9).enqueue(jobs.anything)
    queue.options(queue="mail").enqueue(jobs.anything)
    queue.complete(claimed(queue))
    queue.fail(claimed(queue), "x")
    assert queue.dequeue("mail") is not None
    glance = queue.storage.glance().run()
    exact = queue.stats()
    assert {status: str(count) for status, count in glance.statuses.items()} == {
        status: str(exact[status]) for status in glance.statuses
    }
    shown = {found.queue: (found.ready.jobs, found.scheduled.jobs, found.running.jobs) for found in glance.queues}
    assert shown["mail"] == (1, 1, 1)
    assert shown.get("default", (0, 0, 0)) == (0, 0, 0)
    assert {found.queue: found.oldest_ready is not None for found in glance.queues}["mail"]


def test_many_jobs_are_retried_at_once_with_their_keys(queue: JobQueue) -> None:
    def fail(key: str | None) -> str:
        options: dict[str, Any] = {"unique_key": key} if key else {}
        job_id = queue.options(max_retries=0, **options).enqueue(jobs.anything)
        queue.fail(claimed(queue), "x")
        return job_id

    ids = [fail(None), fail("k"), fail("k")]  # the key was free when the third came
    held = queue.enqueue(jobs.anything)
    done = fail(None)
    queue.retry(done)
    queue.complete(claimed(queue))
    assert queue.storage.retry_many([*ids, held, done], 0.0).run() == 3
    assert {job.id for job in queue.get_pending_jobs()} >= set(ids)
    assert queue.options(unique_key="k").enqueue(jobs.anything) in ids[1:]
    assert queue.storage.retry_many(ids, 0.0).run() == 0
    assert {queue.get_job(job_id).attempts for job_id in ids} == {0}  # type: ignore[union-attr]


def test_many_jobs_are_cancelled_at_once_wherever_they_stand(queue: JobQueue) -> None:
    running = queue.enqueue(jobs.anything)
    held = claimed(queue)
    ended = queue.enqueue(jobs.anything)
    queue.complete(claimed(queue))
    waiting = [queue.options(unique_key="k").enqueue(jobs.anything), queue.options(delay=60).enqueue(jobs.anything)]
    back = queue.options(max_retries=0).enqueue(jobs.anything)
    queue.cancel(back)
    queue.retry(back)
    assert queue.storage.cancel_many([running, ended, *waiting, back]).run() == 4
    assert {job.id for job in queue.list_jobs("cancelled")} == {running, *waiting, back}
    with pytest.raises(LeaseLost):
        queue.complete(held)
    assert queue.options(unique_key="k").enqueue(jobs.anything) not in waiting


def test_ids_are_those_of_all_that_are_meant(queue: JobQueue) -> None:
    queue.enqueue(jobs.anything)
    mail = [queue.options(queue="mail", delay=n).enqueue(jobs.anything) for n in (0, 60)]
    assert queue.storage.ids(None, **MAIL).run() == (mail[::-1], None)
    assert queue.storage.ids(None, **FAILED).run() == ([], None)
