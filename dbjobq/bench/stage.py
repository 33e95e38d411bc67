"""The benchmark's stage: a server, a schema of its own, a worker process. All of it is gone at the end."""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from dbjobq.bench.bare import Bare
from dbjobq.bench.jobs import usage
from dbjobq.bench.meter import Meter
from dbjobq.errors import DBJobQError
from dbjobq.queue.queues import JobQueue
from dbjobq.rig.server import a_server, described, own_schema, signals_restored
from dbjobq.rig.workers import StartWorker, WorkerProcess, Workers
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.way import resolve_conninfo
from dbjobq.storage.postgres_storage import PostgresStorage

__all__ = ["DURABLE_SERVER", "Sizes", "Stage", "staged"]

DURABLE_SERVER: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""Settings of a private server: figures of a server that may lose what it acknowledged would say nothing."""
BENCH_STALLED: Final = 60.0
"""Seconds without a job's end after which the benchmark gives up."""
DONE_CHECK_EVERY: Final = 0.01
"""Seconds between two checks whether the last job has ended."""

_CLEAR: Final = "truncate {0}.job, {0}.ready, {0}.scheduled, {0}.lease, {0}.done, {0}.failure, {0}.unique_key"
_DONE: Final = """
select exists (select from {0}.done where job_id = %s)
   and not exists (select from {0}.lease) and not exists (select from {0}.ready)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured in one round."""

    jobs: int = 20_000
    """How many jobs are enqueued in bulk, and drained."""
    singles: int = 1_000
    """How many jobs are enqueued one after the other."""
    pings: int = 200
    """How many jobs an idle worker picks up."""
    load_seconds: float = 4.0
    claims: int = 100
    backlog: int = 200_000
    """How many jobs of each kind are in the way of claims."""
    gate_seconds: float = 0.5
    """The length of each slice of `gate`."""
    data_bytes: int = 100
    """The size of a job's arguments, as JSON."""
    concurrency: int = 100
    """The worker's concurrency."""


class Place(NamedTuple):
    """A schema on a server."""

    dsn: str
    listen_dsn: str | None
    """A direct DSN of the server, where `dsn` leads through a pooler."""
    schema: str

    def storage(self) -> PostgresStorage:
        """Return a storage on this schema."""
        return PostgresStorage(self.dsn, schema=self.schema, listen_conninfo=self.listen_dsn)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a worker process finds this schema."""
        return {
            "DBJOBQ_DSN": self.dsn,
            "DBJOBQ_SCHEMA": self.schema,
            "DBJOBQ_LISTEN_DSN": self.listen_dsn or "",
        }


class Stage:
    """Everything that the measurements need.

    Args:
        place: A schema with dbjobq's tables, for the benchmark alone.
        sizes: How much is measured.
        start: Starts a worker process, given its arguments and environment.
        stack: Ends everything that the stage begins.
    """

    def __init__(self, place: Place, sizes: Sizes, start: StartWorker, stack: ExitStack) -> None:
        self.sizes, self._place, self._start = sizes, place, start
        self._direct = resolve_conninfo(place.listen_dsn or place.dsn)
        self.storage = stack.enter_context(place.storage())
        self.queue = JobQueue(self.storage)
        self._probe = stack.enter_context(self.connect())
        self.meter = Meter(stack.enter_context(self.connect()))
        self.bare = Bare(stack.enter_context(self.connect()), place.schema)
        around = len(json.dumps(next(self._rows(1, ""))))
        letters = random.Random(0).choices(string.ascii_letters, k=max(0, sizes.data_bytes - around))  # noqa: S311
        self.padding = "".join(letters)  # one letter many times would be compressed to nothing

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Return a new connection to the server itself, past a pooler."""
        with translated(self._place.schema):
            return psycopg.connect(self._direct, autocommit=autocommit)

    def rows(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the arguments of `count` jobs."""
        return self._rows(count, self.padding)

    @staticmethod
    def _rows(count: int, padding: str) -> Iterator[dict[str, Any]]:
        return ({"number": number, "padding": padding} for number in range(count))

    def look(self, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, in which `{0}` stands for the schema."""
        return self._probe.execute(sql.SQL(statement).format(sql.Identifier(self._place.schema)), values).fetchall()

    @contextmanager
    def another(self, kind: str) -> Generator[PostgresStorage]:
        """Lend another schema like the stage's, for a block."""
        with (
            own_schema(self._place.dsn, f"dbjobq_bench_{kind}") as name,
            self._place._replace(schema=name).storage() as storage,
        ):
            yield storage

    def clear(self) -> None:
        """Delete all jobs: every measurement begins with empty tables."""
        self._probe.execute(sql.SQL(_CLEAR).format(sql.Identifier(self._place.schema)))
        self.bare.clear()

    # A worker.

    @contextmanager
    def worker(self) -> Generator[None]:
        """Run a worker process for a block; it has run one job already, and with it everything that is done once."""
        with Workers(self._start_worker) as workers:
            workers.start(1)
            self.worker_cpu()
            yield

    def _start_worker(self) -> WorkerProcess:
        arguments = ["dbjobq.bench.jobs", f"--concurrency={self.sizes.concurrency}", "--log-level=error"]
        return self._start(arguments, self._place.environment())

    def worker_cpu(self) -> float:
        """Return the seconds of CPU that the worker process has used, as one more job says."""
        job_id = self.queue.enqueue(usage)
        self.wait_until_done(job_id)
        ((seconds,),) = self.look("select result::text::float8 from {0}.done where job_id = %s", job_id)
        return float(seconds)

    def wait_until_done(self, job_id: str) -> None:
        """Wait until this job, and all others that wait or run, have ended.

        Raises:
            DBJobQError: No job ends any more.
        """
        ended, by = -1, 0.0
        while not self.look(_DONE, job_id)[0][0]:
            if time.monotonic() > by:
                before, ((ended,),) = ended, self.look("select count(*) from {0}.done")
                if ended == before:
                    raise DBJobQError(f"no job has ended for {BENCH_STALLED:.0f} s; there are {self.queue.stats()}")
                by = time.monotonic() + BENCH_STALLED
            time.sleep(DONE_CHECK_EVERY)


@contextmanager
def staged(start: StartWorker, *, dsn: str, listen_dsn: str | None, sizes: Sizes) -> Generator[tuple[Stage, str]]:
    """Set the stage, lend it with the server's description, and clear it away.

    Args:
        start: Starts a worker process.
        dsn: The server; empty for libpq's variables, and where they are not set, for a durable private server.
        listen_dsn: A direct DSN of the server.
        sizes: How much is measured.
    """
    with ExitStack() as stack:
        stack.enter_context(signals_restored())
        dsn, own = stack.enter_context(a_server(dsn, DURABLE_SERVER))
        schema = stack.enter_context(own_schema(dsn, "dbjobq_bench"))
        stage = Stage(Place(dsn, listen_dsn, schema), sizes, start, stack)
        with stage.connect() as connection:
            server = described(connection, own=own)
        yield stage, server
