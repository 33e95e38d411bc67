"""Many faults at once, for a while, from a seed; then the table and the diary are compared."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage
from tests.support import handlers
from tests.support.waiting import settled

if TYPE_CHECKING:
    from tests.storage.database import Database
    from tests.support.process import WorkerProcess
    from tests.worker.conftest import Processes

SECONDS = 25.0
LEASE = 2.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_happens_to_workers_each_job_ends_and_starts_no_more_often_than_it_may(
    dsn: str, processes: Processes, database: Database, seed: int
) -> None:
    storage = PostgresStorage(make_conninfo(dsn, application_name="producer"))
    with storage:
        chaos(JobQueue(storage), processes, database, seed)


def disturb(
    chance: random.Random,
    crowd: list[WorkerProcess],
    paused: list[WorkerProcess],
    processes: Processes,
    database: Database,
) -> None:
    """Do one thing to the workers, or nothing."""
    match chance.randrange(6):
        case 0:
            victim = crowd.pop(chance.randrange(len(crowd)))
            victim.kill()
            crowd.append(processes.start(lease=LEASE, concurrency=4))
        case 1 if len(paused) < 2:
            victim = crowd.pop(chance.randrange(len(crowd)))
            victim.pause()
            paused.append(victim)
        case 2 if paused:
            victim = paused.pop(0)
            victim.resume()
            crowd.append(victim)
        case 3:
            database.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'dbjobq' and random() < 0.5"
            )
        case 4:
            victim = crowd.pop(chance.randrange(len(crowd)))
            assert victim.stop() == 0
            crowd.append(processes.start(lease=LEASE, concurrency=4))
        case _:
            pass


def chaos(queue: JobQueue, processes: Processes, database: Database, seed: int) -> None:
    chance = random.Random(seed)
    crowd = [processes.start(lease=LEASE, concurrency=4) for _ in range(4)]
    paused: list[WorkerProcess] = []
    ids: list[str] = []
    once: set[str] = set()
    by = time.monotonic() + SECONDS
    while time.monotonic() < by:
        many = [{"seconds": chance.choice([0.0, 0.0, 0.0, 0.01, 0.1])} for _ in range(chance.randrange(200))]
        ids += queue.enqueue_many(chance.choice([handlers.work, handlers.awork]), many, max_retries=50)
        alone = queue.enqueue_many(handlers.work, many[:20], max_retries=0)
        once.update(alone)
        ids += alone
        disturb(chance, crowd, paused, processes, database)
        time.sleep(chance.random())  # between two faults
    for victim in paused:
        victim.resume()
    settled(queue, 60)
    jobs = {job.id: job for job in queue.list_jobs()}
    assert set(jobs) == set(ids)
    starts = Counter(note.job_id for note in processes.diary("start"))
    ends = Counter(note.job_id for note in processes.diary("end"))
    assert {jobs[job_id].status for job_id in ids if job_id not in once} == {"completed"}
    for job_id in ids:
        job = jobs[job_id]
        assert job.status in {"completed", "failed"}
        assert job.status == "completed" or (job.error or "").startswith("WorkerLost")
        assert job.status == "failed" or ends[job_id] >= 1
    handed_back = Counter(
        line.split()[-1] for process in processes.made for line in process.log().splitlines() if "job.released" in line
    )
    too_often = {i: n for i, n in starts.items() if n > jobs[i].attempts + 1 + handed_back[i]}
    assert too_often == {}
    assert {i: starts[i] for i in once if starts[i] > 1 + handed_back[i]} == {}
    assert all(process.alive() for process in crowd)
    assert database.value("select count(*) from dbjobq.lease") == 0
