"""Jobs whose type a worker does not know: a deploy is under way, and others know it, or will soon."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from dbjobq import Job, JobQueue, UnknownJobType, Worker, job
from dbjobq.cli.serving.serve import WorkerSettings
from tests.storage.backstage import Backstage
from tests.storage.database import Database
from tests.support import apart
from tests.support.looking import error_of, get
from tests.support.waiting import ended, until
from tests.worker.conftest import Events, Start

pytestmark = pytest.mark.every_storage


def new_name() -> str:
    """A type that nobody has registered yet."""
    return f"unknown.{secrets.token_hex(4)}"


def put_off(queue: JobQueue, job_id: str) -> Job:
    """Wait until a worker has met a job, and put it off."""
    until(lambda: get(queue, job_id).error and get(queue, job_id).status == "pending")
    return get(queue, job_id)


def long_ago(address: str, seconds: float) -> None:
    """Let a job have been met so many seconds before now, and be due."""
    if address.startswith("sqlite:"):
        with closing(sqlite3.connect(address.removeprefix("sqlite:///"), timeout=30)) as lite, lite:
            lite.execute("update dbjobq_jobs set unknown_since = unknown_since - ?, due_at = 0", (seconds,))
        return
    with Database(address) as database:
        database.rows("update dbjobq.failure set at = at - %s * interval '1 second'", seconds)
        database.rows("update dbjobq.scheduled set run_at = now()")


def test_it_goes_back_at_no_charge_and_runs_when_its_type_is_known(start: Start, queue: JobQueue) -> None:
    start()
    name, ran = new_name(), list[int]()
    job_id = queue.enqueue(name, max_retries=0, n=1)
    found = put_off(queue, job_id)
    assert found.attempts == 0
    assert (found.error or "").startswith(f"UnknownJobType: no function for job type '{name}': this worker looked in")
    assert "fails after 3600 s" in (found.error or "")

    @job(name=name)
    def known(n: int) -> None:
        ran.append(n)

    ended(queue, [job_id])
    assert ran == [1]


def test_it_fails_when_that_has_lasted_too_long_whatever_worker_has_begun_to_count(
    start: Start, queue: JobQueue, address: str, events: Events
) -> None:
    job_id = queue.enqueue(new_name(), max_retries=5)
    first = start()
    put_off(queue, job_id)
    first.stop()
    long_ago(address, 3601)
    start()
    ended(queue, [job_id], "failed")
    assert "this worker looked in" in error_of(queue, job_id)
    until(lambda: events.jobs("job.failed") == [job_id])  # it is told once it is written
    (record,) = events.of("job.failed")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], UnknownJobType)


def test_the_delay_grows_with_the_time_that_it_has_lasted(
    start: Start, queue: JobQueue, address: str, backstage: Backstage
) -> None:
    job_id = queue.enqueue(new_name())
    start()
    put_off(queue, job_id)
    for lasted, least, most in ((20, 18, 50), (300, 54, 60)):
        long_ago(address, lasted)
        until(partial(due_after, backstage, least))
        assert due_after(backstage, least) < most
    assert get(queue, job_id).attempts == 0


def due_after(backstage: Backstage, least: float) -> float:
    """Return in how many seconds what waits is due; 0 if that is less than `least`."""
    return seconds if (seconds := backstage.due_in() or 0.0) > least else 0.0


def test_its_delays_are_no_loop(start: Start, queue: JobQueue, claims: list[float], events: Events) -> None:
    worker = start(poll_interval=5.0, max_poll_interval=5.0)
    ids = [queue.enqueue(name := new_name())] + [queue.enqueue(name) for _ in range(20)]
    for job_id in ids:
        put_off(queue, job_id)
    until(lambda: worker.current_job is None)
    assert len(claims) < 60
    assert [r.levelno for r in events.of("job.unknown")] == [logging.WARNING]  # of the type, not of each job


def test_with_unknown_within_0_it_fails_at_once(start: Start, queue: JobQueue) -> None:
    start(unknown_within=0)
    job_id = queue.enqueue(new_name(), max_retries=0)
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith("UnknownJobType: ")


def test_what_comes_between_begins_the_count_anew(start: Start, queue: JobQueue, address: str) -> None:
    name = new_name()
    job_id = queue.enqueue(name, max_retries=0)
    start()
    put_off(queue, job_id)
    long_ago(address, 3601)
    ended(queue, [job_id], "failed")
    assert queue.retry(job_id)
    found = put_off(queue, job_id)
    assert found.attempts == 0


def test_its_unique_key_is_kept_while_it_waits_and_freed_when_it_fails(
    start: Start, queue: JobQueue, address: str
) -> None:
    name = new_name()
    start()
    job_id = queue.options(unique_key="k").enqueue(name)
    put_off(queue, job_id)
    assert queue.options(unique_key="k").enqueue(name) == job_id
    long_ago(address, 3601)
    ended(queue, [job_id], "failed")
    assert queue.options(unique_key="k").enqueue(name) != job_id


def test_by_hand_it_goes_back_too(queue: JobQueue) -> None:
    job_id = queue.enqueue(new_name(), max_retries=0)
    by_hand = queue.dequeue()
    assert by_hand is not None
    queue.execute_job(by_hand)
    found = get(queue, job_id)
    assert (found.status, found.attempts) == ("pending", 0)
    assert "UnknownJobType" in (found.error or "")


def test_a_process_that_does_not_find_it_puts_it_off_too(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(apart.made(7), value=2)
    found = put_off(queue, job_id)
    assert found.attempts == 0
    assert "found it not registered by that" in (found.error or "")


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), ("soon", TypeError), (float("nan"), ValueError)])
def test_unknown_within_is_a_number_of_seconds(queue: JobQueue, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="unknown_within"):
        Worker(queue, unknown_within=value)


def test_the_command_line_hands_it_to_each_of_several_processes() -> None:
    settings: dict[str, Any] = dict.fromkeys(WorkerSettings.__dataclass_fields__, 1)
    settings |= {"modules": ("shop",), "queues": (), "unknown_within": 7.0}
    assert "--unknown-within=7.0" in WorkerSettings(**settings).arguments()
