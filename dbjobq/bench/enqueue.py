"""Enqueueing: one job after the other next to a bare INSERT, many at once next to a bare COPY.

No worker runs, and the queue is as one leaves it that has fallen asleep: every enqueue notifies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from dbjobq.bench.jobs import noop_async
from dbjobq.bench.sample import Figures, Measure, Sample, compared
from dbjobq.bench.stage import Stage

__all__ = ["bulk", "enqueue"]

Way = Callable[[int], object]
"""Writes so many jobs."""


@contextmanager
def enqueue(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue one by one, each durable before the next: through the pool, and on a held connection."""
    with stage.connect() as held:
        on_held = stage.queue.options(connection=held)

        def pool(jobs: int) -> None:
            for row in stage.rows(jobs):
                stage.queue.enqueue(noop_async, **row)

        def hold(jobs: int) -> None:
            for row in stage.rows(jobs):
                on_held.enqueue(noop_async, **row)

        ways: dict[str, Way] = {
            "pool": pool,
            "held connection": hold,
            "bare INSERT": lambda jobs: stage.bare.insert(stage.rows(jobs)),
        }
        yield _alternating(stage, ways, stage.sizes.singles, "bare INSERT")


@contextmanager
def bulk(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue many jobs in one call."""
    ways: dict[str, Way] = {
        "enqueue_many": lambda jobs: stage.queue.enqueue_many(noop_async, stage.rows(jobs)),
        "bare COPY": lambda jobs: stage.bare.copy(stage.rows(jobs)),
    }
    yield _alternating(stage, ways, stage.sizes.jobs, "bare COPY")


def _alternating(stage: Stage, ways: Mapping[str, Way], jobs: int, bare: str) -> Measure:
    """Return what measures the ways in turn, every other round in the opposite order."""
    order = list(ways)

    def measure() -> Sample:
        sample = {name: _timed(stage, ways[name], jobs) for name in order}
        order.reverse()
        return compared({name: sample[name] for name in ways}, bare)

    return measure


def _timed(stage: Stage, way: Way, jobs: int) -> Figures:
    before = stage.meter.read(lambda: way(1))
    begun = time.perf_counter()
    way(jobs)
    seconds = time.perf_counter() - begun
    after = stage.meter.read(lambda: way(1))
    return {"per_s": jobs / seconds, **after.per_job(before, jobs)}
