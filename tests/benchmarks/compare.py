"""dbjobq beside other job queues on PostgreSQL, and beside bare SQL: `python -m tests.benchmarks.compare`.

    pip install -e '.[demo,fast]' -r tests/benchmarks/requirements.txt
    npm install --prefix tests/benchmarks/peers graphile-worker@0.18.0

Every system has a database of its own on one server (`DBJOBQ_DSN`'s, whose role must be allowed to create databases,
else an embedded one with durability on) and one worker process. Each measurement goes round all systems before the
next begins, so that what drifts hits all alike; what counts are the medians of the rounds, and of the rounds' ratios.
docs/benchmarks.md says what is measured, and what each system keeps and promises.
"""

from __future__ import annotations

import os
import random
import secrets
import string
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import click
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq.bench.meter import Meter, Slice, together
from dbjobq.bench.report import Report, machine
from dbjobq.bench.sample import Figures, Sample, spread
from dbjobq.bench.stage import DURABLE_SERVER
from dbjobq.cli.commands.bench import print_report
from dbjobq.cli.output import echo_json
from dbjobq.rig.progress import Progress, shown
from dbjobq.rig.server import a_server, described
from tests.benchmarks.peers import SYSTEMS
from tests.benchmarks.peers.bare import Bare
from tests.benchmarks.peers.system import Queue, Row, System
from tests.benchmarks.witness import Witness

SLICES: Final = 10
"""A disk that others use, too, changes from second to second: in single enqueues the systems take turns."""
GAP: Final = (0.02, 0.05)
"""Seconds between two jobs for an idle worker."""
SETTLE: Final = 2.0
"""Seconds that a killed worker's connections get to end."""
COLD: Final = 5
"""Jobs before those that count."""
TITLES: Final[Mapping[str, str]] = {
    "enqueue": "Enqueue one by one, each durable before the next",
    "bulk": "Enqueue many",
    "drain": "Drain jobs that do nothing, `async def`, one worker process",
    "drain_def": "Drain jobs that do nothing, `def`, one worker process",
    "life": "The life of a job: bulk enqueue, claim and completion",
    "latency": "An idle worker: from commit to start",
    "idle": "An idle worker: what it asks the server",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured in one round."""

    jobs: int
    singles: int
    pings: int
    idle: int
    """Seconds, once."""


def rows(count: int) -> Iterator[Row]:
    """Yield the arguments of so many jobs: about 100 bytes of JSON each."""
    padding = "".join(random.Random(0).choices(string.ascii_letters, k=66))
    return ({"number": number, "padding": padding} for number in range(count))


class Comparison:
    """The systems side by side.

    Args:
        systems: Those that are installed, their tables made.
        admin: A connection to a database that is none of theirs.
        sizes: How much is measured.
        stack: Ends what is begun here.
    """

    def __init__(
        self, systems: Sequence[System], admin: psycopg.Connection[Any], sizes: Sizes, stack: ExitStack
    ) -> None:
        self._systems, self._admin, self._sizes = systems, admin, sizes
        self._probes = {it.name: stack.enter_context(psycopg.connect(it.dsn, autocommit=True)) for it in systems}
        self.meter = Meter(admin)

    def round(self, progress: Progress, number: int, rounds: int) -> dict[str, Sample]:
        """Measure everything once."""
        steps = (self._work_off, self._work_off_def, self._ping)
        samples: dict[str, Sample] = {name: {} for name in TITLES if name != "idle"}
        samples["enqueue"] = self._enqueue()
        for at, what in enumerate(steps):
            for system in self._systems:
                name = f"round {number}" if number else "warm-up"
                progress.update((number * len(steps)) + at, len(steps) * rounds, f"{name}: {system.name}")
                self._probes[system.name].execute(system.clear)
                for measurement, figures in what(system).items():
                    samples[measurement][system.name] = figures
        return {name: _times(sample) for name, sample in samples.items()}

    def _enqueue(self) -> Sample:
        found: dict[str, list[Slice]] = {system.name: [] for system in self._systems}
        for _ in range(SLICES):
            for system in self._systems:
                work = partial(self._enqueue_some, system, max(1, self._sizes.singles // SLICES))
                found[system.name].append(self.meter.slice(work))
        return {name: together(slices) for name, slices in found.items()}

    @staticmethod
    def _enqueue_some(system: System, jobs: int) -> int:
        system.enqueue_each("noop", rows(jobs))
        return jobs

    def _work_off(self, system: System) -> dict[str, Figures]:
        jobs = max(1, int(self._sizes.jobs * system.share))
        before, begun = self.meter.read(), time.perf_counter()
        system.enqueue_many("noop", rows(jobs))
        bulk_seconds = time.perf_counter() - begun
        between = self.meter.read()
        seconds = self._drain(system, jobs)
        after = self.meter.read()
        return {
            "bulk": {"per_s": jobs / bulk_seconds, **between.per_job(before, jobs)},
            "drain": {"per_s": jobs / seconds, **after.per_job(between, jobs)},
            "life": after.per_job(before, jobs),
        }

    def _work_off_def(self, system: System) -> dict[str, Figures]:
        if not isinstance(system, Queue) or not system.has_threads:
            return {}
        jobs = max(1, int(self._sizes.jobs * system.share))
        system.enqueue_many("noop_def", rows(jobs))
        before = self.meter.read()
        seconds = self._drain(system, jobs)
        return {"drain_def": {"per_s": jobs / seconds, **self.meter.read().per_job(before, jobs)}}

    def _drain(self, system: System, jobs: int) -> float:
        """Return the seconds from the first job's start until nothing is left."""
        if isinstance(system, Bare):
            begun = time.monotonic()
            system.drain()
            return time.monotonic() - begun
        assert isinstance(system, Queue)
        with self._worker(system, expected=jobs) as witness:
            first, _last = witness.wait_for("first"), witness.wait_for("last")
            self._wait_until_ended(system)
            return time.monotonic() - first

    def _wait_until_ended(self, system: System) -> None:
        while (left := self._probes[system.name].execute(system.left).fetchone()) is None or left[0]:
            time.sleep(0.005)

    @contextmanager
    def _worker(self, system: Queue, expected: int = 0) -> Generator[Witness]:
        """Have a worker; at the end give the server time to notice that it is gone."""
        before = self._backends(system)
        with Witness(system, expected=expected) as witness:
            yield witness
        by = time.monotonic() + SETTLE
        while self._backends(system) > before and time.monotonic() < by:
            time.sleep(0.01)

    def _backends(self, system: System) -> int:
        count = "select count(*) from pg_stat_activity where datname = %s"
        return sum(int(found) for (found,) in self._admin.execute(count, [system.database]))

    def _ping(self, system: System) -> dict[str, Figures]:
        if not isinstance(system, Queue):
            return {}
        committed: list[float] = []
        with self._worker(system) as witness:
            for row in rows(COLD + self._sizes.pings):
                time.sleep(random.uniform(*GAP))
                system.enqueue_each("stamp", [row])
                committed.append(time.monotonic())
                if row["number"] < COLD:  # the first says that it works
                    witness.wait_for(str(row["number"]))
            starts = [witness.wait_for(str(number)) for number in range(COLD, len(committed))]
            self._wait_until_ended(system)
        return {"latency": spread([at - since for at, since in zip(starts, committed[COLD:], strict=True)])}

    def idle(self) -> Sample:
        """Have all workers do nothing for a while; return how many transactions each of them sent meanwhile."""
        systems = [system for system in self._systems if isinstance(system, Queue)]
        with ExitStack() as stack:
            for system in systems:
                witness = stack.enter_context(self._worker(system))
                system.enqueue_each("stamp", rows(1))
                witness.wait_for("0")
            time.sleep(self._sizes.idle / 2)  # what they did before is counted by then
            before = {system.name: self._transactions(system) for system in systems}
            time.sleep(self._sizes.idle)
            return {
                system.name: {"idle_per_s": (self._transactions(system) - before[system.name]) / self._sizes.idle}
                for system in systems
            }

    def _transactions(self, system: System) -> int:
        count = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
        return sum(int(found) for (found,) in self._admin.execute(count, [system.database]))


def _times(sample: Sample) -> Sample:
    """Say for each system how many times as fast dbjobq is."""
    ours = sample["dbjobq"].get("per_s")
    return {
        name: figures if ours is None or name == "dbjobq" else {**figures, "times": ours / figures["per_s"]}
        for name, figures in sample.items()
    }


@contextmanager
def installed(admin: psycopg.Connection[Any], dsn: str, names: Sequence[str]) -> Generator[list[System]]:
    """Give each system that is installed a database with its tables; drop them at the end."""
    suffix = secrets.token_hex(4)
    with ExitStack() as stack:
        systems: list[System] = []
        for kind in SYSTEMS:
            if kind.installed() is None or (names and kind.name not in names):
                continue
            database = f"dbjobq_compare_{len(systems)}_{suffix}"
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
            stack.callback(admin.execute, sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))
            system = kind(make_conninfo(dsn, dbname=database), database)
            system.create()
            stack.callback(system.close)
            systems.append(system)
        yield systems


@click.command()
@click.option("--only", multiple=True, type=click.Choice([it.name for it in SYSTEMS]), help="dbjobq always takes part.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--jobs", type=click.IntRange(100), default=20_000, show_default=True)
@click.option("--singles", type=click.IntRange(1), default=500, show_default=True)
@click.option("--pings", type=click.IntRange(1), default=100, show_default=True)
@click.option("--idle", type=click.IntRange(1), default=30, show_default=True, help="Seconds.")
@click.option("--markdown", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
def main(only: tuple[str, ...], *, rounds: int, markdown: bool, as_json: bool, **sizes: int) -> None:
    """Measure, and print tables."""
    names = ["dbjobq", *only] if only else []
    with ExitStack() as stack:
        progress = stack.enter_context(shown())
        dsn, own = stack.enter_context(a_server(os.environ.get("DBJOBQ_DSN", ""), DURABLE_SERVER))
        admin = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        systems = stack.enter_context(installed(admin, dsn, names))
        comparison = Comparison(systems, admin, Sizes(**sizes), stack)
        measured = [comparison.round(progress, number, rounds + 1) for number in range(rounds + 1)][1:]
        samples = {name: [it[name] for it in measured] for name in measured[0]}
        progress.say("all workers at once, idle")
        samples["idle"] = [comparison.idle()]
        about = machine(admin, comparison.meter, described(admin, own=own))
    about |= {kind.name: f"{kind.installed() or 'not installed, left out'}; {kind.settings}" for kind in SYSTEMS}
    report = Report(machine=about, sizes=sizes, titles=TITLES, samples=samples)
    if as_json:
        echo_json(report.as_json())
    else:
        print_report(report, markdown=markdown)


if __name__ == "__main__":
    main()
