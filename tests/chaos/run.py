"""One run: a world, faults by the plan, healing, draining, and the comparison."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.ledger import read
from tests.chaos.report import Line, summary
from tests.chaos.schedule import Place, Planned, plan
from tests.chaos.tables import read_log, read_tables
from tests.chaos.verify import Evidence, Findings, Happened, verify
from tests.chaos.world import World
from tests.support.waiting import until

__all__ = ["Outcome", "run"]

DRAIN: Final = 60.0
"""Seconds in which all that is left must be worked off when the faults are over."""
QUIET: Final = 2.0
"""Seconds that everything goes on after the last fault, so that recovery can be seen."""


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    evidence: Evidence
    findings: Findings
    lines: list[Line]

    def __str__(self) -> str:
        """What there was, in a line."""
        ledger, jobs = self.evidence.ledger, len(self.evidence.tables.jobs)
        ids = sum(len(call.ids or ()) for call in ledger.calls)
        runs, faults, again = len(ledger.executions), len(self.evidence.faults), len(self.findings.again)
        said = f"{len(ledger.calls)} calls to enqueue, {ids} ids acknowledged, {jobs} jobs, {runs} executions"
        return f"{said}, {faults} faults, {again} starts again"


class _Made(NamedTuple):
    until: float
    since: float
    name: str
    fault: Fault


def run(*, seed: int, seconds: float, faults: Sequence[str], lease: float = 3.0, pace: float = 1.0) -> Outcome:
    """Make a world, have these faults happen to it for so many seconds, and compare.

    Args:
        seed: Of the plan and the producers. The machine's timing is not in it: a run is alike, not the same.
        seconds: From the first job's start on.
        faults: Names in `schedule.KINDS`.
        lease: Of the workers, in seconds.
        pace: How busy the producers are.
    """
    needs = {FAULTS[name].__name__ for name in faults}
    with World(
        seed=seed, lease=lease, pace=pace, standby="Failover" in needs, pooler="RestartPooler" in needs
    ) as world:
        until(lambda: _all_at_work(world), 60, "the start of all workers and producers")
        places: dict[Place, int] = {"worker": len(world.workers), "link": len(world.links), "server": 1, "pooler": 1}
        happened = list(_happen(world, plan(seed, seconds, faults, places, lease)))
        time.sleep(QUIET)
        problems = list(_end(world))
        lives = [life for slot in world.workers for life in slot.lives]
        refusals = [refusal for life in lives for refusal in read_log(life.pid, life.log)]
        evidence = Evidence(read(world.folder), read_tables(world.dsn()), happened, refusals, lease)
        findings = verify(evidence)
        findings.violations += problems
        return Outcome(evidence, findings, summary(evidence, findings))


def _all_at_work(world: World) -> bool:
    time.sleep(0.1)  # for the proxies, which are in this process
    ledger = read(world.folder)
    return {slot.life.pid for slot in world.workers} | {producer.pid for producer in world.producers} <= ledger.pids


def _happen(world: World, planned: Iterable[Planned]) -> Iterator[Happened]:
    """Make and mend the faults when it is time; yield each when it is mended."""
    begin = time.monotonic()
    coming = deque(planned)
    under_way: list[_Made] = []
    while coming or under_way:
        moment = time.monotonic() - begin
        if coming and coming[0].at <= moment and not any(made.until <= coming[0].at for made in under_way):
            one = coming.popleft()
            fault, since = FAULTS[one.fault](world, one.where), time.time()
            fault.inject()
            made_at = time.monotonic() - begin  # a fault that took long to make is not there for less
            under_way.append(_Made(made_at + one.until - one.at, since, one.fault, fault))
        for made in [made for made in under_way if made.until <= moment]:
            under_way.remove(made)
            made.fault.heal()
            yield Happened(made.name, made.since, time.time(), made.fault.pids)
        world.tend()
        time.sleep(0.02)


def _end(world: World) -> Iterator[str]:
    """Stop enqueueing, let the workers work everything off, and stop them."""
    for producer in world.producers:
        if code := producer.stop():
            yield f"a producer left with {code}"
    if not world.drain(DRAIN):
        yield f"{world.unfinished()} jobs had not ended {DRAIN} s after the last fault"
    for slot in world.workers:
        if code := slot.stop():
            yield f"a worker that was told to stop left with {code}"
        for life in slot.lives:
            log = life.log.read_text()
            refused = "did not answer" in log and "worker.serving" not in log  # it came up while the server was away
            if not (life.wanted_dead or refused or life.process.poll() == 0):
                yield f"worker {life.pid} ended by itself with {life.process.poll()}: {log[-500:]}"
