"""How a worker scales over cores: `python -m tests.benchmarks.processes`.

The same jobs, which compute, are drained by `dbjobq worker --processes 1`, and by more of them, in turn. The time is
the database's own, from the start of the first job to the end of the last; what counts are the medians of the rounds,
and of the rounds' ratios. The server runs on the same machine, and takes its share of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click
import psycopg

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.bench.meter import Meter
from dbjobq.bench.report import Report, machine
from dbjobq.bench.sample import Sample, compared
from dbjobq.bench.stage import DURABLE_SERVER
from dbjobq.cli.commands.bench import print_report
from dbjobq.rig.progress import shown
from dbjobq.rig.server import a_server, described, own_schema

READY: Final = 30.0
"""Seconds that workers get to start."""
POLL: Final = 0.02


@job(name="benchmarks.compute", max_retries=0)
def compute(steps: int) -> int:
    """Hold the GIL."""
    return sum(range(steps))


@contextmanager
def workers(dsn: str, schema: str, processes: int, queue: JobQueue) -> Generator[None]:
    """Run a worker of so many processes, all of which are at work when the block begins."""
    options = [f"--processes={processes}", "--concurrency=4", f"--schema={schema}", "--log-level=warning"]
    environment = {**os.environ, "DBJOBQ_DSN": dsn}
    command = [sys.executable, "-m", "dbjobq", "worker", __spec__.name, *options]
    with subprocess.Popen(command, env=environment) as parent:
        try:
            by, seen = time.monotonic() + READY, set[str | None]()
            while len(seen) < processes:
                if time.monotonic() > by:
                    raise click.ClickException(f"{len(seen)} of {processes} processes took a job in {READY} s")
                drained(queue, 50, steps=20_000)
                seen |= {found.worker_id for found in queue.list_jobs("completed", 50)}
            yield
        finally:
            parent.send_signal(signal.SIGTERM)


def drained(queue: JobQueue, jobs: int, steps: int) -> float:
    """Enqueue jobs in one transaction; return how many of them were run in a second."""
    ids = set(queue.enqueue_many(compute, ({"steps": steps} for _ in range(jobs))))
    while queue.count("pending") + queue.count("running"):
        time.sleep(POLL)
    ended = [found for found in queue.list_jobs("completed", jobs) if found.id in ids]
    times = [(found.started_at, found.finished_at) for found in ended]
    seconds = max(end for _, end in times if end) - min(start for start, _ in times if start)
    return jobs / seconds.total_seconds()


@click.command()
@click.option("--dsn", envvar="DBJOBQ_DSN", default="", help="A server; an embedded one by default.")
@click.option("--processes", default=os.cpu_count() or 2, show_default=True, help="The most at once.")
@click.option("--jobs", default=400, show_default=True, help="Jobs of a drain.")
@click.option("--steps", default=400_000, show_default=True, help="What a job computes: some milliseconds.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--markdown", is_flag=True)
def main(dsn: str, *, processes: int, rounds: int, markdown: bool, **sizes: int) -> None:
    """Drain computing jobs by one process and by several, and print jobs/s and ratios."""
    ways = {f"--processes={number}": number for number in range(1, processes + 1)}
    samples: list[Sample] = []
    with (
        a_server(dsn, DURABLE_SERVER) as (server, own),
        own_schema(server, "dbjobq_processes") as schema,
        PostgresStorage(server, schema=schema) as storage,
        psycopg.connect(server, autocommit=True) as connection,
        shown() as progress,
    ):
        queue = JobQueue(storage)
        for number in range(rounds):
            sample: Sample = {}
            for way, count in ways.items():
                progress.update(number * processes + count, rounds * processes, way)
                with workers(server, schema, count, queue):
                    sample[way] = {"per_s": drained(queue, **sizes)}
            samples.append(compared(sample, "--processes=1"))
        about = machine(connection, Meter(connection), described(connection, own=own))
    titles = {"drain": "Drain jobs that compute; ratio to one process"}
    print_report(Report(machine=about, sizes=sizes, titles=titles, samples={"drain": samples}), markdown=markdown)


if __name__ == "__main__":
    main()
