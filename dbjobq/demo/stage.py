"""What the story plays on: a server, a schema of its own, worker processes. All of it is gone at the end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import psycopg
from psycopg import sql

from dbjobq import schema
from dbjobq.demo.jobs import RUNS
from dbjobq.errors import DBJobQError
from dbjobq.storage.connections import resolve_conninfo
from dbjobq.storage.faults import translated
from dbjobq.storage.postgres_storage import PostgresStorage

__all__ = ["Runs", "Stage", "StartWorker", "WorkerProcess", "Workers", "staged"]

TIMEOUT: Final = 30.0
"""Seconds a worker may take to start, or to stop."""
SERVER_VARIABLES: Final = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


class WorkerProcess(Protocol):
    """A `dbjobq worker` in a process of its own."""

    pid: int

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it works; False if it ended before."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait until it has ended, and return its exit code."""
        ...

    def stop(self) -> None:
        """Tell it to end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


StartWorker = Callable[[Sequence[str], Mapping[str, str]], WorkerProcess]
"""Starts one, given its arguments and additions to its environment."""


@dataclass(frozen=True, slots=True)
class Stage:
    """All that the story needs."""

    storage: PostgresStorage
    workers: Workers
    runs: Runs
    server: str
    """Which server it is, for people."""


@contextmanager
def staged(start: StartWorker, *, dsn: str, listen_dsn: str | None, lease: float, concurrency: int) -> Generator[Stage]:
    """Set the stage, and clear it away; once that has begun, signals do not interrupt it.

    Args:
        start: Starts a worker.
        dsn: The server; empty for libpq's variables, and where they are not set, a server of our own.
        listen_dsn: A direct way to it.
        lease: Seconds, of the workers.
        concurrency: Of each worker.
    """
    with ExitStack() as stack:
        stack.enter_context(_signals_restored())
        own = not dsn and not any(map(os.environ.get, SERVER_VARIABLES))
        dsn = stack.enter_context(_own_server()) if own else dsn
        name = stack.enter_context(_own_schema(dsn))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="dbjobq-demo-"))
        storage = stack.enter_context(PostgresStorage(dsn, schema=name, listen_conninfo=listen_dsn))
        arguments = ["dbjobq.demo.jobs", f"--lease={lease}", f"--concurrency={concurrency}", "--log-level=error"]
        environment = {"DBJOBQ_DSN": dsn, "DBJOBQ_SCHEMA": name, "DBJOBQ_LISTEN_DSN": listen_dsn or "", RUNS: directory}
        workers = stack.enter_context(Workers(lambda: start(arguments, environment)))
        stack.callback(_ignore_signals)  # the last to be entered is the first to be left
        yield Stage(storage, workers, Runs(Path(directory)), _server(storage, own=own))


@contextmanager
def _own_server() -> Generator[str]:
    from dbjobq.embedded import EmbeddedPostgres

    with EmbeddedPostgres() as server:
        yield server.dsn()


@contextmanager
def _own_schema(dsn: str) -> Generator[str]:
    name = f"dbjobq_demo_{secrets.token_hex(4)}"
    schema.migrate(dsn, name)
    try:
        yield name
    finally:
        with translated(name), psycopg.connect(resolve_conninfo(dsn)) as connection:
            connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(name)))


@contextmanager
def _signals_restored() -> Generator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _server(storage: PostgresStorage, *, own: bool) -> str:
    with storage.transaction() as connection:
        version = connection.info.parameter_status("server_version")
        where = f"{connection.info.dbname} at {connection.info.host or 'local'}"
    return f"PostgreSQL {version}, " + ("started for this demo" if own else where)


class Workers:
    """The worker processes; none outlives the `with` block.

    Args:
        start: Starts one.
    """

    def __init__(self, start: Callable[[], WorkerProcess]) -> None:
        self._start = start
        self._processes: list[WorkerProcess] = []

    def start(self, count: int) -> None:
        """Start some more, and wait until they work.

        Raises:
            DBJobQError: One does not; it has said why.
        """
        new = [self._start() for _ in range(count)]
        self._processes += new
        for process in new:
            if not process.wait_ready(TIMEOUT):
                raise DBJobQError(f"worker process {process.pid} did not start")

    def first(self) -> int:
        """Return the id of the process that was started first."""
        return self._processes[0].pid

    @contextmanager
    def first_frozen(self) -> Generator[None]:
        """Hold the first one still, so that one can look at what it is doing; it may be killed meanwhile."""
        process = self._processes[0]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if process in self._processes:
                os.kill(process.pid, signal.SIGCONT)

    def kill_first(self) -> None:
        """End the first one with SIGKILL."""
        process = self._processes.pop(0)
        process.kill()
        process.wait(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.stop()
        for process in self._processes:
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(TIMEOUT)


class Runs:
    """What the workers have noted of the jobs they ran, whatever the database says.

    Args:
        directory: Where each has its file.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def twice(self) -> tuple[int, int]:
        """Return how many jobs were begun more than once, and how many were run to their end more than once."""
        notes: Counter[tuple[str, str]] = Counter()
        for file in self._directory.iterdir():
            notes.update(
                (words[0], words[1]) for line in file.read_text("ascii").splitlines() if len(words := line.split()) == 2
            )
        again = Counter(what for (what, _), times in notes.items() if times > 1)
        return again["begun"], again["ended"]
