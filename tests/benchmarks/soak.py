"""Hours of steady work, and whether anything grows: `python -m tests.benchmarks.soak --minutes 60`.

Clients enqueue at a steady rate, each on a connection of its own; worker processes keep up. Every so often it is noted
how much memory the processes have, how many dead rows and bytes the hot tables, and how long jobs waited since the last
time, by the server's clock. What is printed are those notes; the exit code is 1 if jobs were lost or are left over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import click
import psycopg
from psycopg import sql

from dbjobq import JobQueue, PostgresStorage
from dbjobq.bench.jobs import noop_async
from dbjobq.bench.stage import DURABLE_SERVER
from dbjobq.cli.serving.lifeline import WorkerProcess
from dbjobq.rig.progress import Progress, shown
from dbjobq.rig.server import a_server, own_schema
from dbjobq.rig.workers import Workers

HOT: Final = ("ready", "scheduled", "lease", "queue", "worker")
PADDING: Final = "x" * 66
DRAIN: Final = 60.0
"""Seconds in which what is left must be done at the end."""
WAITS: Final = """
    select count(*), percentile_cont(array[0.5, 0.99]) within group (
               order by date_part('epoch', done.started_at - job.created_at) * 1000)
      from {0}.done join {0}.job on job.id = done.job_id
     where done.finished_at > %s and done.finished_at <= %s
"""
TABLES: Final = """
    select coalesce(sum(n_dead_tup), 0), coalesce(sum(pg_total_relation_size(relid)), 0)
      from pg_stat_user_tables where schemaname = %s and relname = any (%s)
"""


class Note(NamedTuple):
    """What is seen at one time."""

    minute: float
    jobs: int
    p50_ms: float
    p99_ms: float
    dead_rows: int
    hot_mb: float
    workers_mb: float
    clients_mb: float

    def line(self) -> str:
        return (
            f"| {self.minute:.1f} | {self.jobs:,} | {self.p50_ms:.1f} | {self.p99_ms:.1f} | {self.dead_rows:,} "
            f"| {self.hot_mb:.1f} | {self.workers_mb:.1f} | {self.clients_mb:.1f} |"
        )


HEAD: Final = (
    "| minute | jobs | p50 ms | p99 ms | dead rows | hot tables MB | workers MB | clients MB |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def resident_mb(pid: int) -> float:
    """Return the memory that a process has to itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) / 1024


class Clients:
    """Threads that enqueue, together at a steady rate.

    Args:
        queue: With a connection for each of them.
        count: How many.
        rate: Jobs a second, of all together.
    """

    def __init__(self, queue: JobQueue, count: int, rate: float) -> None:
        self._queue, self._count, self._rate = queue, count, rate
        self._stopping = threading.Event()
        self._enqueued = [0] * count
        self._threads = [threading.Thread(target=self._enqueue, args=(number,)) for number in range(count)]

    @property
    def enqueued(self) -> int:
        """How many jobs were acknowledged."""
        return sum(self._enqueued)

    def _enqueue(self, number: int) -> None:
        every = self._count / self._rate
        due = time.monotonic() + every * number / self._count
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self._queue.enqueue(noop_async, number=number, padding=PADDING)
            self._enqueued[number] += 1
            due = max(due + every, time.monotonic() - 1.0)  # what a stall held up is not all made up for

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def working(place: Mapping[str, str], count: int) -> Generator[list[WorkerProcess]]:
    """Have so many worker processes."""
    started: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        started.append(WorkerProcess(["dbjobq.bench.jobs", "--concurrency=10", "--log-level=warning"], place))
        return started[-1]

    with Workers(start) as workers:
        workers.start(count)
        yield started


def notes(
    probe: psycopg.Connection[Any], schema: str, workers: Sequence[WorkerProcess], every: float, minutes: float
) -> Generator[Note]:
    """Look every so many seconds."""
    begin, waits = time.monotonic(), WAITS.format(sql.Identifier(schema).as_string(probe)).encode()
    ((since,),) = probe.execute("select clock_timestamp()")
    while time.monotonic() - begin < minutes * 60:
        time.sleep(every)
        ((until,),) = probe.execute("select clock_timestamp()")
        ((jobs, waited),) = probe.execute(waits, (since, until))
        ((dead, size),) = probe.execute(TABLES, (schema, list(HOT)))
        p50, p99 = waited or (0.0, 0.0)
        memory = max(resident_mb(worker.pid) for worker in workers)
        minute = (time.monotonic() - begin) / 60
        yield Note(minute, jobs, p50, p99, int(dead), int(size) / 1e6, memory, resident_mb(os.getpid()))
        since = until


def left(queue: JobQueue, progress: Progress) -> int:
    """Wait until everything is done; return how many jobs are not."""
    by = time.monotonic() + DRAIN
    while (waiting := queue.count("pending") + queue.count("running")) and time.monotonic() < by:
        progress.say(f"{waiting} jobs left")
        time.sleep(0.5)
    return waiting


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=48, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=4, show_default=True)
@click.option("--rate", type=click.IntRange(1), default=1_000, show_default=True, help="Jobs a second, of all clients.")
@click.option("--every", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Seconds.")
def main(*, minutes: float, clients: int, workers: int, rate: int, every: float) -> None:
    """Let it run, and print what was noted."""
    with ExitStack() as stack:
        progress = stack.enter_context(shown())
        dsn, _own = stack.enter_context(a_server(os.environ.get("DBJOBQ_DSN", ""), DURABLE_SERVER))
        schema = stack.enter_context(own_schema(dsn, "dbjobq_soak"))
        queue = stack.enter_context(JobQueue(PostgresStorage(dsn, schema=schema, max_size=clients)))
        probe = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        place = {"DBJOBQ_DSN": dsn, "DBJOBQ_SCHEMA": schema}
        processes = stack.enter_context(working(place, workers))
        click.echo(HEAD)
        with Clients(queue, clients, rate) as enqueuing:
            for note in notes(probe, schema, processes, every, minutes):
                click.echo(note.line())
        waiting, done, enqueued = left(queue, progress), queue.count("completed"), enqueuing.enqueued
        click.echo(f"{enqueued:,} jobs enqueued, {done:,} completed, {waiting:,} left")
    sys.exit(0 if done == enqueued and not waiting else 1)


if __name__ == "__main__":
    main()
