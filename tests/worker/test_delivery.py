"""Delivery, shown on processes that are killed and paused."""

from __future__ import annotations

import time
from collections import Counter

import psycopg
import pytest

from dbjobq import JobQueue
from tests.support import handlers
from tests.support.looking import get
from tests.support.waiting import ended, lasting, settled, until
from tests.worker.conftest import LASTING, Processes

everywhere = pytest.mark.every_storage(usually="postgres")


@pytest.mark.every_storage
def test_jobs_of_a_killed_worker_run_elsewhere_and_one_attempt_is_charged(
    queue: JobQueue, processes: Processes
) -> None:
    victim = processes.start(lease=3.0, concurrency=3)
    ids = [queue.enqueue(handlers.work if n else handlers.awork, seconds=LASTING) for n in range(3)]
    until(lambda: len(processes.diary("start")) == 3)
    other = processes.start(lease=6.0, concurrency=3)
    until(lambda: "worker.started" in other.log())
    victim.kill()
    until(lambda: len(processes.diary("start")) == 6)
    for job_id in ids:
        found = get(queue, job_id)
        assert (found.status, found.attempts) == ("running", 1)
        assert (found.error or "").startswith("WorkerLost: worker ")
        assert f":{victim.pid}:" in (found.error or "")
        assert "this was attempt 1 of 4" in (found.error or "")
    assert other.log().count("job.rescued") == 3


@pytest.mark.slow
def test_the_job_of_a_killed_worker_runs_elsewhere_within_the_lease(queue: JobQueue, processes: Processes) -> None:
    late: list[float] = []
    for n in range(3):  # of three times: the machine may hold up any
        victim = processes.start(lease=2.0)
        job_id = queue.enqueue(handlers.work, seconds=LASTING)
        until(lambda n=n: len(processes.diary("start")) == 2 * n + 1)  # type: ignore[misc]
        other = processes.start(lease=2.0)
        until(lambda other=other: "worker.started" in other.log())  # type: ignore[misc]
        victim.kill()
        killed_at = time.monotonic()
        until(lambda n=n: len(processes.diary("start")) == 2 * n + 2)  # type: ignore[misc]
        late.append(time.monotonic() - killed_at)
        queue.cancel(job_id)
        other.kill()
    assert min(late) < 2.0, late


def test_jobs_of_a_killed_worker_are_not_lost_though_no_other_runs_at_that_time(
    queue: JobQueue, processes: Processes
) -> None:
    victim = processes.start(lease=3.0)
    job_id = queue.enqueue(handlers.work, seconds=1)
    until(lambda: processes.diary("start"))
    victim.kill()
    processes.start(lease=6.0)
    ended(queue, [job_id])
    assert get(queue, job_id).attempts == 1


@everywhere
def test_a_kill_under_load_loses_nothing(queue: JobQueue, processes: Processes, backend: str) -> None:
    jobs = 3000 if backend == "postgres" else 600
    ids = queue.enqueue_many(handlers.awork, [{} for _ in range(jobs)])
    victims = [processes.start(lease=3.0, concurrency=5) for _ in range(2)]
    for n, victim in enumerate(victims):
        until(lambda n=n: len(processes.diary("end")) > jobs // 10 * (n + 1))  # type: ignore[misc]
        victim.kill()
    processes.start(lease=6.0, concurrency=5)
    ended(queue, ids)
    assert len(queue.list_jobs()) == jobs
    assert queue.count("running") == 0
    assert max(j.attempts for j in queue.list_jobs()) <= 2
    ran = Counter(note.job_id for note in processes.diary("start"))
    attempts = {j.id: j.attempts for j in queue.list_jobs()}
    assert all(count <= attempts[job_id] + 1 for job_id, count in ran.items())


@everywhere
def test_a_result_that_comes_after_a_pause_beyond_the_lease_is_refused_and_the_job_completed_once(
    queue: JobQueue, processes: Processes
) -> None:
    paused = processes.start(lease=3.0)
    job_id = queue.enqueue(handlers.returning, seconds=1.5)
    until(lambda: processes.diary("start"))
    paused.pause()
    other = processes.start(lease=6.0)
    ended(queue, [job_id])
    assert get(queue, job_id).result == other.pid
    paused.resume()
    until(lambda: len(processes.diary("end")) == 2)
    until(lambda: f"job.refused {job_id}" in paused.log() or f"job.taken {job_id}" in paused.log())
    found = get(queue, job_id)
    assert (found.status, found.attempts, found.result) == ("completed", 1, other.pid)
    assert queue.stats()["completed"] == queue.count() == 1
    again = queue.enqueue(handlers.work)
    ended(queue, [again])
    assert paused.stop() == 0


@everywhere
def test_a_worker_that_comes_back_from_a_pause_works_on(queue: JobQueue, processes: Processes) -> None:
    paused = processes.start(lease=3.0)
    first = queue.enqueue(handlers.awork, seconds=30)
    until(lambda: processes.diary("start"))
    paused.pause()
    other = processes.start(lease=6.0)
    until(lambda: len(processes.diary("start")) == 2)
    paused.resume()
    until(lambda: f"job.fenced {first}" in paused.log() or f"job.taken {first}" in paused.log())
    job_id = queue.enqueue(handlers.returning)
    ended(queue, [job_id])
    assert get(queue, job_id).result == paused.pid
    assert other.alive()


def test_a_short_pause_within_the_lease_costs_nothing(queue: JobQueue, processes: Processes) -> None:
    paused = processes.start(lease=5.0)
    job_id = queue.enqueue(handlers.work, seconds=1.5)
    until(lambda: processes.diary("start"))
    processes.start(lease=5.0)
    paused.pause()
    lasting(lambda: get(queue, job_id).attempts == 0, 1.5)
    paused.resume()
    ended(queue, [job_id])
    assert (get(queue, job_id).attempts, len(processes.diary("start"))) == (0, 1)


@everywhere
@pytest.mark.parametrize("retries", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_job_that_kills_its_process_every_time_fails_after_its_retries_with_an_error_that_says_so(
    queue: JobQueue, processes: Processes, retries: int
) -> None:
    job_id = queue.enqueue(handlers.die, max_retries=retries)
    for n in range(retries + 1):
        victim = processes.start(lease=3.0)
        until(lambda victim=victim: not victim.alive())  # type: ignore[misc]
        assert len(processes.diary("start")) == n + 1
    survivor = processes.start(lease=6.0)
    ended(queue, [job_id], "failed")
    found = get(queue, job_id)
    assert found.attempts == retries + 1
    assert (found.error or "").startswith("WorkerLost: ")
    assert f"this was attempt {retries + 1} of {retries + 1}" in (found.error or "")
    lasting(survivor.alive, 3.0)
    assert len(processes.diary("start")) == retries + 1
    assert "job.dead" in survivor.log()


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_job_without_retries_is_never_started_twice(queue: JobQueue, processes: Processes, fault: str) -> None:
    victim = processes.start(lease=3.0)
    job_id = queue.enqueue(handlers.work, max_retries=0, seconds=1)
    until(lambda: processes.diary("start"))
    getattr(victim, fault)()
    processes.start(lease=6.0)
    ended(queue, [job_id], "failed")
    if fault == "pause":
        victim.resume()
        until(lambda: "job.refused" in victim.log() or "job.taken" in victim.log())
    lasting(lambda: len(processes.diary("start")) == 1, 2.0)
    assert get(queue, job_id).status == "failed"


@pytest.mark.parametrize("kind", ["def", "async"])
def test_jobs_claimed_ahead_on_a_paused_worker_are_not_started_when_it_comes_back(
    queue: JobQueue, processes: Processes, kind: str
) -> None:
    function = handlers.work if kind == "def" else handlers.awork
    paused = processes.start(lease=3.0)
    ended(queue, queue.enqueue_many(function, [dict[str, int]()] * 400))
    begun = len(processes.diary("start"))
    ids = queue.enqueue_many(function, [{"seconds": 0.2}, *([{"seconds": 0.0}] * 20)])
    until(lambda: len(processes.diary("start")) > begun)
    paused.pause()
    held = queue.count("running")
    if held < 2:
        pytest.skip("what was claimed ahead was handed back before the pause")
    processes.start(lease=6.0)
    settled(queue)
    starts = Counter(note.job_id for note in processes.diary("start"))
    paused.resume()
    until(lambda: "worker.lease_lost" in paused.log() or "job.refused" in paused.log() or "job.taken" in paused.log())
    again = queue.enqueue(function)
    ended(queue, [again])
    after = Counter(note.job_id for note in processes.diary("start"))
    del after[again]
    assert after == starts
    assert all(starts[job_id] == 1 for job_id in ids[1:])


@everywhere
def test_a_job_that_kills_its_worker_costs_those_held_with_it_one_attempt_at_most(
    queue: JobQueue, processes: Processes
) -> None:
    """They have not started; and they must not fail with a neighbour that kills every worker."""
    first = processes.start(lease=3.0)
    ended(queue, queue.enqueue_many(handlers.awork, [dict[str, int]()] * 300))
    killer = queue.enqueue(handlers.die, max_retries=2, priority=9)
    others = queue.enqueue_many(handlers.awork, [dict[str, int]()] * 100)
    until(lambda: not first.alive())
    for _ in range(2):
        victim = processes.start(lease=3.0)
        until(lambda victim=victim: not victim.alive())  # type: ignore[misc]
    processes.start(lease=6.0)
    ended(queue, others)
    ended(queue, [killer], "failed")
    assert get(queue, killer).attempts == 3
    assert max(get(queue, job_id).attempts for job_id in others) <= 1


def test_jobs_without_retries_do_not_end_with_a_worker_that_has_not_started_them(
    queue: JobQueue, processes: Processes, dsn: str
) -> None:
    first = processes.start(lease=3.0)
    ended(queue, queue.enqueue_many(handlers.awork, [dict[str, int]()] * 300))
    with psycopg.connect(dsn) as connection:  # so that one claim gets them all
        once = queue.options(max_retries=0, connection=connection)
        killer = once.enqueue(handlers.die_at_once)
        others = once.enqueue_many(handlers.awork, [dict[str, int]()] * 50)
    until(lambda: not first.alive())
    processes.start(lease=6.0)
    ended(queue, others)
    ended(queue, [killer], "failed")
    assert queue.count("failed") == 1


@everywhere
def test_stopping_a_process_ends_it_cleanly(queue: JobQueue, processes: Processes) -> None:
    process = processes.start()
    job_id = queue.enqueue(handlers.work, seconds=0.3)
    until(lambda: processes.diary("start"))
    assert process.stop() == 0
    assert get(queue, job_id).status == "completed"
    assert "worker.stopped" in process.log()
