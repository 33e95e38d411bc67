"""The demo's stage: a server, a schema of its own, worker processes. All of it is gone at the end."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dbjobq.demo.jobs import RUNS
from dbjobq.rig.server import a_server, described, ignore_signals, own_schema, signals_restored
from dbjobq.rig.workers import StartWorker, Workers
from dbjobq.storage.postgres_storage import PostgresStorage

__all__ = ["Runs", "Stage", "staged"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that the story needs."""

    storage: PostgresStorage
    workers: Workers
    runs: Runs
    server: str
    """A description of the server, for people."""


@contextmanager
def staged(start: StartWorker, *, dsn: str, listen_dsn: str | None, lease: float, concurrency: int) -> Generator[Stage]:
    """Set the stage, and clear it away at the end; signals do not interrupt the clearing.

    Args:
        start: Starts a worker.
        dsn: The server; empty for libpq's variables, and where they are not set, for a private server.
        listen_dsn: A direct DSN of the server.
        lease: The workers' lease in seconds.
        concurrency: The concurrency of each worker.
    """
    with ExitStack() as stack:
        stack.enter_context(signals_restored())
        dsn, own = stack.enter_context(a_server(dsn))
        name = stack.enter_context(own_schema(dsn, "dbjobq_demo"))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="dbjobq-demo-"))
        storage = stack.enter_context(PostgresStorage(dsn, schema=name, listen_conninfo=listen_dsn))
        arguments = ["dbjobq.demo.jobs", f"--lease={lease}", f"--concurrency={concurrency}", "--log-level=error"]
        environment = {"DBJOBQ_DSN": dsn, "DBJOBQ_SCHEMA": name, "DBJOBQ_LISTEN_DSN": listen_dsn or "", RUNS: directory}
        workers = stack.enter_context(Workers(lambda: start(arguments, environment)))
        with storage.transaction() as connection:
            server = described(connection, own=own)
        stack.callback(ignore_signals)  # registered last, so it runs before everything else is cleared away
        yield Stage(storage, workers, Runs(Path(directory)), server)


class Runs:
    """The workers' own notes of the jobs they ran, independent of the database.

    Args:
        directory: The directory of the workers' files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def twice(self) -> tuple[int, int]:
        """Return how many jobs were begun more than once, and how many came to their end more than once."""
        notes: Counter[tuple[str, str]] = Counter()
        for file in self._directory.iterdir():
            notes.update(
                (words[0], words[1]) for line in file.read_text("ascii").splitlines() if len(words := line.split()) == 2
            )
        again = Counter(what for (what, _), times in notes.items() if times > 1)
        return again["begun"], again["ended"]
