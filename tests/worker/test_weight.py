"""What a worker holds is bounded in bytes, and what may have been a worker's death is run one by one."""

from __future__ import annotations

import random
import string
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dbjobq import job
from dbjobq.runtime import buffer
from tests.support.waiting import ended, until

if TYPE_CHECKING:
    from dbjobq import JobQueue
    from tests.storage.database import Database
    from tests.worker.conftest import Start

TEXT = "".join(random.Random(1).choices(string.ascii_letters, k=60_000))


class Crowd:
    """How many jobs run at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def run(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.03)
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("kind", ["large", "suspect", "suspect and large", "neither"])
def test_no_more_run_at_once_than_a_worker_can_bear(
    start: Start, queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    crowd = Crowd()

    @job(name="weight.f")
    def weigh(text: str) -> None:
        crowd.run()

    monkeypatch.setattr(buffer, "ALONE", 30.0)
    monkeypatch.setattr(buffer, "SPACE", 150_000)
    ids = queue.enqueue_many(weigh, ({"text": TEXT if "large" in kind else ""} for _ in range(20)))
    if "suspect" in kind:
        database.rows("update dbjobq.ready set suspect = true")
    start(concurrency=10)
    ended(queue, ids, timeout=60)
    most = {"large": 3, "suspect": 1, "suspect and large": 1, "neither": 10}
    assert crowd.most <= most[kind]
    assert crowd.most > 1 or "suspect" in kind
    assert all(found.attempts == 0 for found in queue.list_jobs())


def test_a_job_that_was_a_worker_s_death_and_runs_on_holds_up_others_for_a_moment_only(
    start: Start, queue: JobQueue, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    @job(name="weight.long")
    def long() -> None:
        assert go_on.wait(60)

    @job(name="weight.short")
    def short() -> None:
        pass

    monkeypatch.setattr(buffer, "ALONE", 0.2)
    ids = [queue.enqueue(long), queue.enqueue(long)]
    database.rows("update dbjobq.ready set suspect = true")
    start(concurrency=4)
    ended(queue, [queue.enqueue(short)])
    until(lambda: queue.stats()["running"] == 2)
    go_on.set()
    ended(queue, ids)
