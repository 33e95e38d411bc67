"""Hooks of `dbjobq worker`: each process has those that the modules of its jobs add."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

from tests.cli.support import eventually, started

if TYPE_CHECKING:
    from pathlib import Path

    from dbjobq import JobQueue

HOOKED = """
import os
from dbjobq import Hooks, JobContext, hooks, job

def note(*words):
    with open("notes", "a") as file:
        file.write(" ".join(map(str, (os.getpid(), *words))) + "\\n")

class Notes(Hooks):
    def enqueueing(self, jobs):
        note("enqueueing", *(job.type for job in jobs))
    def claimed(self, batch):
        for claim in batch:
            note("claimed", claim.id)
    def ended(self, batch, refused):
        for outcome in batch:
            if outcome.event == "complete":
                note("ended", outcome.claim.id)
    def worker(self, said):
        note("said", said.event)

hooks.add(Notes())

@job
def plain():
    note("ran")

@job(executor="process")
def apart(ctx: JobContext):
    note("ran")
    ctx.queue.enqueue(plain)
"""


def test_each_process_tells_its_own_hooks_of_its_own_jobs(dsn: str, queue: JobQueue, app: Path) -> None:
    (app / "hooked.py").write_text(HOOKED)
    ids = [*queue.enqueue_many("hooked.plain", [{} for _ in range(20)]), queue.enqueue("hooked.apart")]
    with started(app, dsn, "worker", "hooked", "--processes=2") as parent:
        parent.says("worker.serving", times=2)
        eventually(lambda: queue.count("completed") == len(ids) + 1)
        parent.signal(signal.SIGTERM)
        assert parent.exit_code() == 0, parent.log
    notes = [line.split() for line in (app / "notes").read_text().splitlines()]
    workers = {pid for pid, word, *rest in notes if (word, rest) == ("said", ["worker.stopped"])}
    assert len(workers) == 2
    for kind in ("claimed", "ended"):
        told = Counter(rest[0] for _, word, *rest in notes if word == kind)
        assert len(told) == len(ids) + 1
        assert set(ids) <= set(told)
        assert {pid for pid, word, *_ in notes if word == kind} <= workers
        assert kind == "claimed" or set(told.values()) == {1}  # what is claimed ahead may go back
    (enqueued,) = [pid for pid, word, *_ in notes if word == "enqueueing"]
    assert enqueued not in workers  # in the job's own process
