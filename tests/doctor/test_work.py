"""The work: whether it is done, can be done, and is where it should be."""

from __future__ import annotations

import pytest

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.doctor import SEVERITIES, worst
from dbjobq.doctor.findings import Finding, span
from tests.doctor.findings import only, troubles
from tests.storage.backstage import Backstage
from tests.storage.database import Database
from tests.storage.workers import claim, run, worker


@job(name="doctor.known")
def known() -> None: ...


def age(database: Database, seconds: int) -> None:
    """Make all ready jobs older."""
    for table in ("job", "ready"):
        database.connection.execute(f"update dbjobq.{table} set position = position - {seconds * 1_000_000}".encode())


def test_a_ready_job_that_waits_while_none_runs_means_that_nobody_serves_its_queue(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    queue.options(queue="mail").enqueue("f")
    queue.options(queue="mail").enqueue("f")
    age(database, 312)
    finding = only(storage)
    assert (finding.check, finding.severity) == ("queues", "warning")
    assert "queue 'mail': of 2 ready jobs the oldest has waited 5 min" in finding.found
    assert "--queue mail" in finding.advice


def test_a_ready_job_that_waits_while_others_run_means_that_workers_cannot_keep_up(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    queue.enqueue("f")
    queue.enqueue("f")
    queue.dequeue()
    age(database, 312)
    assert troubles(storage) == []  # a burst that is worked off
    age(database, 312)
    finding = only(storage)
    assert finding.severity == "warning"
    assert "cannot keep up" in finding.found


def test_a_scheduled_job_that_does_not_become_ready_is_told(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage
) -> None:
    queue.options(delay=10).enqueue("f")
    backstage.skip(100)
    finding = only(storage)
    assert (finding.check, finding.severity) == ("schedule", "warning")
    assert "1 scheduled job" in finding.found


def test_jobs_that_nobody_takes_back_are_told_with_who_held_them(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage
) -> None:
    async def main() -> None:
        async with worker(storage, "crashed") as session:
            queue.enqueue("f")
            assert len(await claim(session)) == 1

    run(main())
    queue.enqueue("f")
    queue.dequeue(lease=5)
    backstage.skip(30.5 + 35)
    found = troubles(storage)
    assert [f.check for f in found] == ["leases", "leases"]
    assert {f.found.partition(" ")[0] for f in found} == {"crashed", storage.dequeuer}
    assert all("1 job" in f.found for f in found)


def test_a_type_that_no_named_module_answers_to_is_told_before_it_fails(
    storage: PostgresStorage, queue: JobQueue
) -> None:
    queue.enqueue(known)
    queue.options(delay=60).enqueue("nowhere.to.be_found")
    assert troubles(storage) == []  # who could know without the modules
    finding = only(storage, ["tests.doctor.test_work"])
    assert (finding.check, finding.severity) == ("job types", "warning")
    assert "1 job of type 'nowhere.to.be_found' wait" in finding.found
    assert "tests.doctor.test_work" in finding.advice


def test_a_type_that_workers_have_refused_is_told_without_modules(storage: PostgresStorage, queue: JobQueue) -> None:
    queue.options(max_retries=0).enqueue("nowhere.to.be_found")
    dequeued = queue.dequeue()
    assert dequeued is not None
    queue.execute_job(dequeued)
    finding = only(storage)
    assert (finding.check, finding.severity) == ("job types", "warning")
    assert "1 job of type 'nowhere.to.be_found' met workers lately" in finding.found


def test_a_job_in_no_state_or_in_two_is_critical(storage: PostgresStorage, queue: JobQueue, database: Database) -> None:
    one, two = queue.enqueue("f"), queue.enqueue("f")
    database.rows("delete from dbjobq.ready where job_id = %s", one)
    database.rows("insert into dbjobq.done (job_id, attempts, status) values (%s, 0, 2)", two)
    found = troubles(storage)
    assert {(f.check, f.severity) for f in found} == {("states", "critical")}
    assert [one in f.found and "no state" in f.found for f in found] == [True, False]
    assert two in found[1].found
    assert "done, ready" in found[1].found


def test_a_ready_row_that_cancel_would_not_find_is_critical(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    queue.enqueue("f")
    database.rows("update dbjobq.ready set position = position + 1")
    assert only(storage).check == "states"


def test_rows_that_belong_to_nothing_are_critical(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    gone = queue.enqueue("f")
    ended = queue.options(unique_key="k").enqueue("f")
    database.rows("delete from dbjobq.job where id = %s", gone)
    database.rows("delete from dbjobq.ready where job_id = %s", ended)
    database.rows("insert into dbjobq.done (job_id, attempts, status) values (%s, 0, 2)", ended)
    found = troubles(storage)
    assert {(f.check, f.severity) for f in found} == {("orphans", "critical")}
    assert any(gone in f.found and "rows of ready" in f.found for f in found)
    assert any(ended in f.found and "unique keys" in f.found for f in found)


def test_a_lease_whose_worker_is_not_known_is_critical(
    storage: PostgresStorage, queue: JobQueue, database: Database
) -> None:
    queue.enqueue("f")
    queue.dequeue()
    database.rows("update dbjobq.lease set expires_at = null")
    database.rows("delete from dbjobq.worker")
    finding = only(storage)
    assert finding.severity == "critical"
    assert "worker is not known" in finding.found


def test_jobs_that_move_are_never_taken_for_lost(
    storage: PostgresStorage, queue: JobQueue, backstage: Backstage
) -> None:
    """Every way a job can go, with nothing to be found on the way."""
    for _ in range(3):
        queue.enqueue("f")
        queue.options(delay=5, unique_key=f"k{_}").enqueue("f")
    queue.enqueue_many(known, [{}, {}, {}])
    failed = queue.dequeue()
    assert failed is not None
    queue.fail(failed, "once")
    done = queue.dequeue()
    assert done is not None
    queue.complete(done)
    queue.cancel(queue.enqueue("f"))
    queue.retry(queue.list_jobs("cancelled")[0].id)
    backstage.skip(6)
    assert queue.dequeue() is not None
    backstage.skip(-6)
    assert troubles(storage) == []


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_worst_is_the_highest() -> None:
    assert worst([]) == "ok"
    assert worst([Finding("x", severity, "") for severity in SEVERITIES]) == "critical"
