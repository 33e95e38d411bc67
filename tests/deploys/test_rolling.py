"""Workers replaced one after the other, under load."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from dbjobq import JobQueue
from tests.deploys.release import Release
from tests.support import handlers
from tests.support.waiting import settled, until

if TYPE_CHECKING:
    from tests.deploys.conftest import Fleet
    from tests.deploys.load import Load


@pytest.mark.slow
def test_a_rolling_deploy_under_load_loses_nothing_and_starts_nothing_twice(fleet: Fleet, load: Load) -> None:
    workers = [fleet.start(Release()) for _ in range(3)]
    with load:
        for old in workers:
            until(load.more(50))
            fleet.start(Release())
            until(load.more(20))
            old.signal(signal.SIGTERM)
            assert old.exit_code() == 0, old.log
            assert "worker.stopped" in old.log
        until(load.more(50))
    load.worked_off()


@pytest.mark.slow
def test_what_does_not_end_in_time_runs_elsewhere_free_of_charge(fleet: Fleet, load: Load, queue: JobQueue) -> None:
    """A deploy of workers that are busy for longer than they are given."""
    workers = [fleet.start(Release(), "--shutdown-timeout=1") for _ in range(2)]
    long = [queue.enqueue(handlers.awork, seconds=4) for _ in range(8)]
    until(lambda: {note.job_id for note in load.diary("start")} == set(long))
    began = time.monotonic()
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.exit_code() for worker in workers] == [0, 0]
    assert time.monotonic() - began < 1 + 5  # the longest that `stop` may take
    fleet.start(Release())
    settled(queue, 60)
    assert {(job.status, job.attempts) for job in queue.list_jobs()} == {("completed", 0)}
    assert Counter(note.job_id for note in load.diary("start")) == Counter(long * 2)
    assert Counter(note.job_id for note in load.diary("end")) == Counter(long)
