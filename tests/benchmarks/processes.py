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
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from statistics import median
from typing import Final

import click

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.bench.stage import DURABLE
from dbjobq.stage.progress import shown
from dbjobq.stage.server import a_server, own_schema

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


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Return the median, with the least and the most."""
    known = sorted(values)
    return f"{median(known):,.{digits}f} ({known[0]:,.{digits}f}-{known[-1]:,.{digits}f})"


@click.command()
@click.option("--dsn", envvar="DBJOBQ_DSN", default="", help="A server; an embedded one by default.")
@click.option("--processes", default=os.cpu_count() or 2, show_default=True, help="The most at once.")
@click.option("--jobs", default=400, show_default=True, help="Jobs of a drain.")
@click.option("--steps", default=400_000, show_default=True, help="What a job computes: some milliseconds.")
@click.option("--rounds", default=5, show_default=True)
def main(dsn: str, processes: int, jobs: int, steps: int, rounds: int) -> None:
    """Drain computing jobs by one process and by several, and print jobs/s and ratios as Markdown."""
    rates: dict[int, list[float]] = {number: [] for number in range(1, processes + 1)}
    with (
        a_server(dsn, DURABLE) as (server, _),
        own_schema(server, "dbjobq_processes") as schema,
        PostgresStorage(server, schema=schema) as storage,
        shown() as progress,
    ):
        queue = JobQueue(storage)
        for number in sorted(rates) * rounds:
            progress.update(sum(map(len, rates.values())), rounds * processes, f"processes: {number}")
            with workers(server, schema, number, queue):
                rates[number].append(drained(queue, jobs, steps))
    click.echo("| processes | jobs/s | to one process |\n| ---: | ---: | ---: |")
    for number, found in rates.items():
        ratio = spread((many / one for many, one in zip(found, rates[1], strict=True)), 2)
        click.echo(f"| {number} | {spread(found)} | {ratio} |")


if __name__ == "__main__":
    main()
