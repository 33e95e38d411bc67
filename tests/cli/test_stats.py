from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.support import invoke

if TYPE_CHECKING:
    from dbjobq import JobQueue


def test_it_counts_by_status_and_by_queue(dsn: str, queue: JobQueue) -> None:
    queue.enqueue("app.send")
    queue.options(queue="mail", delay=60).enqueue("app.send")
    assert queue.dequeue() is not None
    counts = json.loads(invoke(dsn, "stats", "--json").stdout)
    assert counts["statuses"] == {"pending": 1, "running": 1, "completed": 0, "failed": 0, "cancelled": 0, "total": 2}
    assert counts["queues"] == [
        {"queue": "default", "ready": 0, "scheduled": 0, "running": 1, "oldest_ready": None},
        {"queue": "mail", "ready": 0, "scheduled": 1, "running": 0, "oldest_ready": None},
    ]


def test_it_prints_two_tables(dsn: str, queue: JobQueue) -> None:
    queue.enqueue("app.send")
    by_status, by_queue = invoke(dsn, "stats").stdout.split("\n\n")
    assert "pending       1" in by_status
    assert by_queue.splitlines()[1].startswith("default      1          0        0  0.")
