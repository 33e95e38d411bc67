"""Enqueueing: one job after the other next to a bare INSERT, many at once next to a bare COPY.

No worker runs. The queue is first as a sleeping worker leaves it, so that every enqueue notifies, then as busy workers
leave it, so that none does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from dbjobq.bench.jobs import noop_async
from dbjobq.bench.meter import Slice, together
from dbjobq.bench.sample import Measure, Sample, compared
from dbjobq.bench.stage import Stage

__all__ = ["bulk", "enqueue"]

ENQUEUE_SLICES: Final = 20
"""The parts in which single enqueues take turns: a disk that others use changes from second to second."""
BUSY: Final = ", workers busy"
BULKS: Final = 5
"""Calls of each way in a round, since one call takes a moment only."""

Way = Callable[[int], object]
"""Enqueues this number of jobs."""


@contextmanager
def enqueue(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue one by one, each durable before the next."""

    def pool(jobs: int) -> None:
        for row in stage.rows(jobs):
            stage.queue.enqueue(noop_async, **row)

    def say_who_sleeps(name: str) -> None:
        stage.look("update {0}.queue set wanted = %s returning id", not name.endswith(BUSY))

    ways: dict[str, Way] = {
        "pool": pool,
        f"pool{BUSY}": pool,
        "bare INSERT": lambda jobs: stage.bare.insert(stage.rows(jobs)),
    }
    yield _alternating(stage, ways, stage.sizes.singles, "bare INSERT", ENQUEUE_SLICES, before=say_who_sleeps)


@contextmanager
def bulk(stage: Stage) -> Generator[Measure]:
    """Prepare to enqueue many jobs in one call."""
    ways: dict[str, Way] = {
        "enqueue_many": lambda jobs: stage.queue.enqueue_many(noop_async, stage.rows(jobs)),
        "bare COPY": lambda jobs: stage.bare.copy(stage.rows(jobs)),
    }
    yield _alternating(stage, ways, stage.sizes.jobs * BULKS, "bare COPY", BULKS)


def _alternating(  # noqa: PLR0913, PLR0917 - what is measured, and how
    stage: Stage,
    ways: Mapping[str, Way],
    jobs: int,
    bare: str,
    slices: int,
    before: Callable[[str], object] = lambda _: None,
) -> Measure:
    """Return a function that measures the ways in turn, slice by slice, every other slice in the opposite order.

    Args:
        stage: The stage.
        ways: The ways to enqueue, by name.
        jobs: How many jobs each way enqueues in a round.
        bare: The way that the others are compared to.
        slices: In how many parts.
        before: Called with the way's name before each of its slices.
    """
    times = 1 if stage.meter.clock == "active" else min(slices, jobs)  # reading that clock takes a second
    each, order = jobs // times, list(ways)

    def work(name: str) -> Slice:
        way = ways[name]
        before(name)

        def enqueue() -> int:
            way(each)
            return each

        return stage.meter.slice(enqueue, lambda: way(1))

    def measure() -> Sample:
        found: dict[str, list[Slice]] = {name: [] for name in ways}
        for number in range(times):
            for name in order[:: -1 if number % 2 else 1]:
                found[name].append(work(name))
        return compared({name: together(taken) for name, taken in found.items()}, bare)

    return measure
