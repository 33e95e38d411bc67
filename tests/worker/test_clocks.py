"""A worker whose clock is wrong by an hour: no effect, for all times are the database's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dbjobq import JobQueue
from tests.storage.database import Database
from tests.support import handlers
from tests.support.looking import get
from tests.support.waiting import ended, lasting, until
from tests.worker.conftest import Processes

HOUR = 3600
OFF = pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["fast", "slow"])


def between(before: datetime, *times: datetime | None) -> None:
    """Check that these times follow each other, none in the future."""
    order = [before, *times, datetime.now(UTC) + timedelta(seconds=1)]
    assert order == sorted(time for time in order if time is not None)


@OFF
def test_delays_retries_and_the_times_of_a_job_are_right(
    queue: JobQueue, processes: Processes, database: Database, off: int
) -> None:
    processes.start(clock_off=off)
    before = database.value("select clock_timestamp()")
    later = queue.options(delay=1.0).enqueue(handlers.work)
    job_id = queue.enqueue(handlers.tell_time)
    ended(queue, [job_id, later])
    found = get(queue, job_id)
    assert abs(found.result["time"] - datetime.now(UTC).timestamp() - off) < 60, "the worker's clock was not wrong"
    between(before, found.created_at, found.started_at, found.finished_at)
    assert found.attempts == 1
    assert found.created_at is not None
    assert found.started_at is not None
    assert timedelta(seconds=0.5) <= found.started_at - found.created_at < timedelta(seconds=10)
    delayed = get(queue, later)
    between(before, delayed.created_at, delayed.execute_at, delayed.started_at, delayed.finished_at)


@OFF
def test_what_a_job_there_enqueues_with_a_delay_is_due_when_it_says_and_an_absolute_time_is_taken_at_its_word(
    queue: JobQueue, processes: Processes, off: int
) -> None:
    processes.start(clock_off=off)
    job_id = queue.enqueue(handlers.tell_time)
    ended(queue, [job_id])
    made: dict[str, str] = get(queue, job_id).result
    now = datetime.now(UTC)
    for made_id, due in ((made["delayed"], HOUR), (made["at"], HOUR + off)):
        found = get(queue, made_id)
        assert found.execute_at is not None
        assert found.created_at is not None
        assert abs((found.execute_at - now).total_seconds() - due) < 60
        assert abs(found.created_at - now) < timedelta(seconds=60)
    assert get(queue, made["delayed"]).status == "pending"


@OFF
def test_its_jobs_are_not_taken_while_it_lives_and_are_when_it_is_gone(
    queue: JobQueue, processes: Processes, off: int
) -> None:
    wrong = processes.start(lease=5.0, clock_off=off)
    job_id = queue.enqueue(handlers.work, seconds=60)
    until(lambda: processes.diary("start"))
    right = processes.start(lease=5.0)
    until(lambda: "worker.started" in right.log())
    lasting(lambda: get(queue, job_id).attempts == 0, 3.0)  # dead workers were looked for twice
    wrong.kill()
    until(lambda: len(processes.diary("start")) == 2, what="the rescue")
    assert get(queue, job_id).attempts == 1


@OFF
def test_it_takes_no_jobs_from_the_living_and_those_of_the_dead_in_time(
    queue: JobQueue, processes: Processes, off: int
) -> None:
    right = processes.start(lease=5.0)
    job_id = queue.enqueue(handlers.work, seconds=60)
    until(lambda: processes.diary("start"))
    wrong = processes.start(lease=5.0, clock_off=off)
    until(lambda: "worker.started" in wrong.log())
    lasting(lambda: get(queue, job_id).attempts == 0, 3.0)  # dead workers were looked for twice
    right.kill()
    until(lambda: len(processes.diary("start")) == 2, what="the rescue")
    assert processes.diary("start")[1].pid == wrong.pid
