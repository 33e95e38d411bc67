"""Graphile Worker (https://worker.graphile.org), on Node.js: the record holder among PostgreSQL queues.

    npm install --prefix tests/benchmarks/peers graphile-worker@0.18.0

Jobs are enqueued from here, through the SQL functions that it documents for other languages.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.benchmarks.peers.system import Queue, Row, chunks

__all__ = ["Graphile"]

SCRIPT: Final = Path(__file__).with_suffix(".mjs")
CHUNK: Final = 1_000
"""Jobs in one call of `add_jobs`."""
VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
}


class Graphile(Queue):
    """See `Queue`."""

    name: ClassVar[str] = "Graphile"
    settings: ClassVar[str] = (
        f"`add_job` on a held connection, `add_jobs` of {CHUNK:,}; Node.js, the preset of its page on performance: "
        "`concurrentJobs` 24, `localQueue` of 500, batched completions"
    )
    has_threads: ClassVar[bool] = False
    left: ClassVar[LiteralString] = "select exists (select from graphile_worker._private_jobs)"
    clear: ClassVar[LiteralString] = "truncate graphile_worker._private_jobs"

    @classmethod
    def installed(cls) -> str | None:
        package = SCRIPT.parent / "node_modules/graphile-worker/package.json"
        return str(json.loads(package.read_text())["version"]) if package.exists() else None

    def _environment(self) -> Mapping[str, str]:
        where = conninfo_to_dict(self.dsn)
        quiet = {"NO_LOG_SUCCESS": "1"}
        return os.environ | quiet | {theirs: str(where[name]) for name, theirs in VARIABLES.items() if name in where}

    def create(self) -> None:
        subprocess.run(["node", SCRIPT, "migrate"], env=self._environment(), check=True)
        self._connection = psycopg.connect(self.dsn, autocommit=True)

    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        for row in rows:
            self._connection.execute("select graphile_worker.add_job(%s, %s)", (handler, json.dumps(row)))

    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        for chunk in chunks(rows, CHUNK):
            self._connection.execute(
                "select count(*) from graphile_worker.add_jobs(array("
                "select row(%s, it, null, null, null, null, null, null)::graphile_worker.job_spec"
                " from unnest(%s::json[]) as it))",
                (handler, [json.dumps(row) for row in chunk]),
            )

    async def work(self) -> None:
        os.execvpe("node", ["node", str(SCRIPT), "work"], self._environment())

    def close(self) -> None:
        self._connection.close()
