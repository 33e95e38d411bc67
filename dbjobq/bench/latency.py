"""How soon a job starts: on an idle worker, and while jobs keep coming.

A job returns the time at which it was started. The worker is a process on this machine, whose monotonic clock all
processes share: no database's clock is asked, and the way to the server and back counts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from dbjobq.bench.jobs import started
from dbjobq.bench.sample import Measure, Sample, spread
from dbjobq.bench.stage import Stage

__all__ = ["idle", "load"]

GAP: Final = (0.02, 0.05)
"""Seconds between two jobs, in which the worker falls asleep again."""
COLD: Final = 10
"""Jobs that do not count, before those that do: connections prepare their statements."""
RATE: Final = 500
"""Jobs that are enqueued a second, however far the worker is behind."""
LOAD_PRODUCERS: Final = 4

_STARTS: Final = """
select (job.data ->> 'number')::int, done.result::text::float8
  from {0}.done join {0}.job on job.id = done.job_id
 where job.type = 'bench.started'
"""


@contextmanager
def idle(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue jobs so that each finds the worker asleep."""

    def measure() -> Sample:
        called: list[float] = []
        committed: list[float] = []
        last = ""
        with stage.worker():
            for row in stage.rows(COLD + stage.sizes.pings):
                time.sleep(random.uniform(*GAP))  # noqa: S311 - spread, not secrecy
                called.append(time.monotonic())
                last = stage.queue.enqueue(started, **row)
                committed.append(time.monotonic())
            stage.wait_until_done(last)
        starts = {number: at for number, at in _starts(stage) if number >= COLD}
        return {
            "commit to start": spread([at - committed[number] for number, at in starts.items()]),
            "call to start": spread([at - called[number] for number, at in starts.items()]),
        }

    yield measure


@contextmanager
def load(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue at a steady rate. Late producers are not excused: a wait begins when the job was due."""
    jobs = int(stage.sizes.load_seconds * RATE)
    given_up = threading.Event()

    def produce(begin: float, first: int) -> str:
        """Enqueue this producer's share of the jobs, each at its time; return the last one's id."""
        last = ""
        for row in stage.rows(jobs):
            if row["number"] % LOAD_PRODUCERS != first:
                continue
            if given_up.wait(max(0.0, begin + row["number"] / RATE - time.monotonic())):
                break
            last = stage.queue.enqueue(started, **row)
        return last

    def measure() -> Sample:
        with stage.worker(), ThreadPoolExecutor(LOAD_PRODUCERS) as pool:
            begin = time.monotonic() + 0.1
            try:
                lasts = list(pool.map(produce, [begin] * LOAD_PRODUCERS, range(LOAD_PRODUCERS)))
            except BaseException:
                given_up.set()
                raise
            for last in lasts:
                stage.wait_until_done(last)
        waits = [at - (begin + number / RATE) for number, at in _starts(stage)]
        return {f"{RATE} jobs/s, due to start": spread(waits)}

    yield measure


def _starts(stage: Stage) -> list[tuple[int, float]]:
    """Return the number and the start of each job."""
    return [(int(number), float(at)) for number, at in stage.look(_STARTS)]
