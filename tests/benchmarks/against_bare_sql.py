"""How much of what bare SQL can do is left once it is a job queue: `python -m tests.benchmarks.against_bare_sql`.

Every round measures dbjobq and the bare loop one after the other on the same server, so that a noisy machine slows
both; what counts is the median of the rounds' ratios. Durability is on (fsync, synchronous_commit), history is kept.
The server is `DBJOBQ_DSN`'s if it is set (a schema of its own, dropped at the end), else an embedded one.

The bare loop keeps no history, has no leases, no retries, no fences and runs no Python function: it claims 500 rows
with SKIP LOCKED, deletes them, commits.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate

SCHEMA = "dbjobq_benchmark"
JOBS, SINGLES, ROUNDS = 40_000, 1_000, 5
PADDING = "x" * 80
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
PAIRS = {
    "enqueue_many": "bare_copy",
    "drain_async": "bare_drain",
    "drain_def": "bare_drain",
    "enqueue": "bare_insert",
}

BARE = """
create table {0}.bare (id bigint generated always as identity primary key, queue int, priority int, data json);
create index bare_claim on {0}.bare (queue, priority desc, id);
"""
CLAIM = """
delete from {0}.bare where id = any (array (
    select id from {0}.bare where queue = 1 order by priority desc, id limit 500 for update skip locked
)) returning id, data
"""


@job(name="benchmark.noop_async")
async def noop_async(number: int, padding: str) -> None:
    """Do nothing, on the event loop."""


@job(name="benchmark.noop")
def noop(number: int, padding: str) -> None:
    """Do nothing, on a thread."""


def arguments(count: int) -> Iterator[dict[str, object]]:
    """Return the arguments of so many jobs: about 100 bytes of JSON each."""
    return ({"number": number, "padding": PADDING} for number in range(count))


@contextmanager
def measured(dsn: str) -> Generator[dict[str, float]]:
    """Fill in the seconds and the WAL bytes that a block takes."""
    taken: dict[str, float] = {}
    with psycopg.connect(dsn, autocommit=True) as probe:
        before = probe.execute("select pg_current_wal_insert_lsn()").fetchone()
        since = time.perf_counter()
        yield taken
        taken["seconds"] = time.perf_counter() - since
        wal = probe.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", before).fetchone()
        taken["wal"] = float(wal[0]) if wal else 0.0


class Bench:
    """The measured things: each returns a number of jobs a second."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.storage = PostgresStorage(dsn, schema=SCHEMA)
        self.queue = JobQueue(self.storage)
        self.wal: dict[str, float] = {}
        with psycopg.connect(dsn) as connection:
            for statement in BARE.format(SCHEMA).strip().split("\n"):
                connection.execute(statement.encode())

    def enqueue_many(self) -> float:
        """enqueue_many of 100-byte jobs."""
        with measured(self.dsn) as taken:
            self.queue.enqueue_many(noop_async, arguments(JOBS))
        self.wal["enqueue_many"] = taken["wal"] / JOBS
        return JOBS / taken["seconds"]

    def bare_copy(self) -> float:
        """COPY by write_row into one table with one more index."""
        with psycopg.connect(self.dsn) as connection, measured(self.dsn) as taken:
            with connection.cursor().copy(f"copy {SCHEMA}.bare (queue, priority, data) from stdin".encode()) as copy:
                for data in arguments(JOBS):
                    copy.write_row((1, 5, json.dumps(data)))
            connection.commit()
        return JOBS / taken["seconds"]

    def _drain(self, name: str) -> float:
        with measured(self.dsn) as taken, Worker(self.queue, concurrency=100):
            while self.queue.count("pending") + self.queue.count("running"):
                time.sleep(0.02)
        self.wal[name] = taken["wal"] / JOBS
        return JOBS / taken["seconds"]

    def drain_async(self) -> float:
        """One worker, no-op `async def` jobs, claimed, run and completed; its start and stop included."""
        return self._drain("drain_async")

    def drain_def(self) -> float:
        """The same with `def` jobs."""
        self.queue.enqueue_many(noop, arguments(JOBS))
        return self._drain("drain_def")

    def bare_drain(self) -> float:
        """The bare loop."""
        with psycopg.connect(self.dsn, autocommit=True) as connection, measured(self.dsn) as taken:
            while connection.execute(CLAIM.format(SCHEMA).encode()).fetchall():
                pass
        return JOBS / taken["seconds"]

    def enqueue(self) -> float:
        """One job after the other through the pool, each durable before the next."""
        with measured(self.dsn) as taken:
            for number in range(SINGLES):
                self.queue.enqueue(noop_async, number=number, padding=PADDING)
        self.wal["enqueue"] = taken["wal"] / SINGLES
        return SINGLES / taken["seconds"]

    def bare_insert(self) -> float:
        """One INSERT after the other on a held connection."""
        insert = f"insert into {SCHEMA}.bare (queue, priority, data) values (1, 5, %s)".encode()
        with psycopg.connect(self.dsn, autocommit=True) as connection, measured(self.dsn) as taken:
            for data in arguments(SINGLES):
                connection.execute(insert, (json.dumps(data),))
            connection.execute(f"delete from {SCHEMA}.bare".encode())
        return SINGLES / taken["seconds"]

    def empty(self) -> None:
        """Work off what is left."""
        with Worker(self.queue, concurrency=100):
            while self.queue.count("pending"):
                time.sleep(0.02)

    def pickup(self) -> list[float]:
        """Milliseconds from a commit to the start of its job on an idle worker."""
        waits: list[float] = []
        with Worker(self.queue):
            for number in range(200):
                job_id = self.queue.enqueue(noop_async, number=number, padding=PADDING)
                while (done := self.queue.get_job(job_id)) is None or done.status != "completed":
                    time.sleep(0.005)
                if number >= 20 and done.started_at and done.created_at:
                    waits.append((done.started_at - done.created_at).total_seconds() * 1000)
        return sorted(waits)


def main() -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        dsn = os.environ.get("DBJOBQ_DSN") or stack.enter_context(EmbeddedPostgres(settings=DURABLE)).dsn()
        migrate(dsn, SCHEMA)
        stack.callback(drop_schema, dsn)
        bench = Bench(dsn)
        stack.callback(bench.storage.close)
        report(bench)


def drop_schema(dsn: str) -> None:
    """Leave nothing behind."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"drop schema {SCHEMA} cascade".encode())


def report(bench: Bench) -> None:
    """Run the rounds, the first not counted, and print what came of them."""
    order: list[Callable[[], float]] = [
        bench.enqueue_many,
        bench.bare_copy,
        bench.drain_async,
        bench.bare_drain,
        bench.drain_def,
        bench.enqueue,
        bench.bare_insert,
    ]
    rounds: list[dict[str, float]] = []
    for number in range(ROUNDS + 1):
        rates = {measure.__name__: measure() for measure in order}
        bench.empty()
        print(number or "warm-up", {name: round(rate) for name, rate in rates.items()}, file=sys.stderr)
        rounds += [rates] if number else []
    print(f"{'':14}{'jobs/s':>10}{'bare':>10}{'ratio':>8}   (medians of {ROUNDS} rounds)")
    for ours, bare in PAIRS.items():
        rate = statistics.median(r[ours] for r in rounds)
        base = statistics.median(r[bare] for r in rounds)
        ratio = statistics.median(r[ours] / r[bare] for r in rounds)
        print(f"{ours:14}{rate:>10,.0f}{base:>10,.0f}{ratio:>8.2f}")
    print("WAL bytes a job: " + ", ".join(f"{name} {wal:,.0f}" for name, wal in bench.wal.items()))
    waits = bench.pickup()
    p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    print(f"idle worker, commit to start: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
