"""The rounds: each makes every measurement once, so that a drift of the machine hits all alike. The first warms up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from typing import Final

from dbjobq.bench.backlog import backlog
from dbjobq.bench.drain import drain
from dbjobq.bench.enqueue import bulk, enqueue
from dbjobq.bench.gate import gate
from dbjobq.bench.latency import idle, load
from dbjobq.bench.report import Report, machine
from dbjobq.bench.sample import Figures, Measure, Sample
from dbjobq.bench.stage import Sizes, Stage, staged
from dbjobq.rig.progress import Progress
from dbjobq.rig.server import ignore_signals
from dbjobq.rig.workers import StartWorker

__all__ = ["MEASUREMENTS", "Plan", "play"]

MEASUREMENTS: Final[Mapping[str, Callable[[Stage], AbstractContextManager[Measure]]]] = {
    "enqueue": enqueue,
    "bulk": bulk,
    "drain": drain,
    "idle": idle,
    "load": load,
    "backlog": backlog,
    "gate": gate,
}
"""The measurements, in the order in which they are made and printed."""

TITLES: Final[Mapping[str, str]] = {
    "enqueue": "enqueue: one after the other, each durable before the next; ratio to a bare INSERT",
    "bulk": "bulk: many jobs in one call; ratio to a bare COPY, written row by row",
    "drain": "drain: jobs that do nothing, by one worker process; ratio to a bare loop of claim and delete",
    "life": "life: bulk enqueue, claim and completion together, async def",
    "idle": "idle: from the commit of an enqueue to the start of its job by a worker that slept",
    "load": "load: the same while jobs come at a steady rate, from the moment each was due",
    "backlog": "backlog: a claim of 10 jobs with many of one kind lying around; ratio to an empty system",
    "gate": "gate: 16 producers at once; ratio to the same without NOTIFY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The measurements to make, and the server to make them on."""

    dsn: str
    listen_dsn: str | None
    sizes: Sizes
    only: Sequence[str] = tuple(MEASUREMENTS)
    rounds: int = 5


def play(plan: Plan, start: StartWorker, progress: Progress) -> Report:
    """Measure, and return the report.

    Args:
        plan: The measurements to make.
        start: Starts a worker process.
        progress: Shows the progress.

    Raises:
        DBJobQError: There is no server, no right to make a schema, no worker, or jobs do not end.
    """
    with (
        staged(start, dsn=plan.dsn, listen_dsn=plan.listen_dsn, sizes=plan.sizes) as (stage, server),
        ExitStack() as on,
    ):
        progress.say(server)
        names = [name for name in MEASUREMENTS if name in plan.only]
        measures: dict[str, Measure] = {}
        for name in names:
            progress.update(0, (plan.rounds + 1) * len(names), f"preparing {name}")
            measures[name] = on.enter_context(MEASUREMENTS[name](stage))
        on.callback(ignore_signals)  # registered last, so it runs before everything else is cleared away
        progress.say(f"rounds: 1 to warm up, {plan.rounds} that count")
        samples: dict[str, list[Sample]] = {name: [] for name in names}
        for number in range(plan.rounds + 1):
            for at, name in enumerate(names):
                what = f"round {number}" if number else "warm-up"
                progress.update(number * len(names) + at, (plan.rounds + 1) * len(names), f"{what}: {name}")
                stage.clear()
                sample = measures[name]()
                samples[name] += [sample] * bool(number)
        if {"bulk", "drain"} <= samples.keys():
            samples["life"] = [*map(_life, samples["bulk"], samples["drain"])]
        with stage.connect() as connection:
            about = machine(connection, stage.meter, server)
        return Report(machine=about, sizes=asdict(plan.sizes), titles=TITLES, samples=samples)


def _life(bulk: Sample, drain: Sample) -> Sample:
    """Return the cost of a job from its enqueue to its end."""

    def both(enqueued: Figures, drained: Figures) -> Figures:
        return {key: enqueued[key] + drained[key] for key in ("wal_bytes", "server_us")}

    return {
        "dbjobq": both(bulk["enqueue_many"], drain["async def"]),
        "bare SQL": both(bulk["bare COPY"], drain["bare loop"]),
    }
