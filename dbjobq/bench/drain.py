"""Draining: how fast one worker process works off jobs that do nothing, next to bare loops of 500 rows at a time.

The worker is up, and has run a job. All jobs are written in one transaction and become visible by its commit. The time
is the database's: from the first claim to the last completion. The worker itself tells its CPU time, before and after.
The same is measured beside a transaction that keeps dead rows from being vacuumed: claims might walk over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dbjobq.bench.jobs import noop, noop_async
from dbjobq.bench.meter import together
from dbjobq.bench.sample import Figures, Measure, Sample, compared
from dbjobq.bench.stage import Stage
from dbjobq.errors import DBJobQError

__all__ = ["drain"]

_SPAN = """
select count(*), date_part('epoch', max(finished_at) - min(started_at))
  from {0}.done join {0}.job on job.id = done.job_id
 where job.id between %s and %s and done.status = 2
"""


@contextmanager
def drain(stage: Stage) -> Generator[Measure]:
    """Prepare to drain jobs: `async def` functions, `def` functions, and rows of the bare table."""

    def measure() -> Sample:
        with stage.worker():
            sample = {"async def": _drained(stage, noop_async), "def": _drained(stage, noop)}
            with _snapshot(stage):
                sample["async def, beside an old snapshot"] = _drained(stage, noop_async)
        sample["bare loop"] = _bare(stage, stage.bare.claim_and_delete)
        sample["bare loop that may lose jobs"] = _bare(stage, stage.bare.pop)
        return compared(sample, "bare loop")

    yield measure


@contextmanager
def _snapshot(stage: Stage) -> Generator[None]:
    """Hold a snapshot for a block, as a dump does: rows that are deleted meanwhile cannot be vacuumed."""
    with stage.connect(autocommit=False) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select 1")
        yield
        connection.rollback()


def _drained(stage: Stage, function: Callable[..., Any]) -> Figures:
    jobs = stage.sizes.jobs
    with stage.connect(autocommit=False) as connection:
        ids = stage.queue.options(connection=connection).enqueue_many(function, stage.rows(jobs))
        before_cpu = stage.worker_cpu()
        before = stage.meter.read(stage.worker_cpu)
        connection.commit()
        stage.wait_until_done(ids[-1])
        after = stage.meter.read(stage.worker_cpu)  # before this connection's process ends: that would blur its CPU
    client = stage.worker_cpu() - before_cpu
    ((done, seconds),) = stage.look(_SPAN, ids[0], ids[-1])
    if done != jobs:
        raise DBJobQError(f"{jobs} jobs were enqueued, but {done} completed")
    return {"per_s": jobs / seconds, **after.per_job(before, jobs), "client_us": client / jobs * 1e6}


def _bare(stage: Stage, drain: Callable[[], None]) -> Figures:
    jobs = stage.sizes.jobs
    stage.bare.clear()
    stage.bare.copy(stage.rows(jobs))
    before_cpu = time.process_time()

    def work() -> int:
        drain()
        return jobs

    taken = stage.meter.slice(work, partial(stage.bare.copy, ()))
    return {**together([taken]), "client_us": (time.process_time() - before_cpu) / jobs * 1e6}
