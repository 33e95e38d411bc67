from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from tests.conftest import Postgres

SMALL = ("--rounds=1", "--jobs=200", "--singles=5", "--pings=3", "--idle=1")


def test_it_compares_what_is_installed_and_leaves_nothing(postgres: Postgres) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.compare", "--only=bare SQL", *SMALL, "--json"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "DBJOBQ_DSN": postgres.dsn},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert list(figures) == ["enqueue", "bulk", "drain", "drain_def", "life", "latency", "idle"]
    assert set(figures["drain"]) == {"dbjobq", "bare SQL"}
    assert figures["drain"]["bare SQL"]["times"]["median"] > 0
    assert set(figures["drain_def"]) == set(figures["latency"]) == set(figures["idle"]) == {"dbjobq"}
    with psycopg.connect(postgres.dsn) as connection:
        assert not connection.execute("select from pg_database where datname like 'dbjobq_compare%'").fetchall()
