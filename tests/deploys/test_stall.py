"""A migration under load that cannot have its locks: nobody waits behind it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import schema
from dbjobq.storage.postgres.schema_version import HEAD
from tests.deploys.release import Release
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.deploys.conftest import Fleet
    from tests.deploys.load import Load

HELD = 5.0
"""Seconds that somebody else keeps a lock; without a timeout of ours, everybody would wait as long."""


@contextmanager
def forgotten(dsn: str) -> Generator[psycopg.Connection[Any]]:
    """A transaction that has read our tables, and stays open."""
    with psycopg.connect(make_conninfo(dsn, application_name="forgotten")) as connection:
        connection.execute("select from dbjobq.ready, dbjobq.lease, dbjobq.job, dbjobq.done limit 1")
        yield connection


@pytest.mark.slow
def test_a_migration_behind_a_long_transaction_stalls_nobody(
    dsn: str, tmp_path: Path, fleet: Fleet, load: Load, *, newer: Release
) -> None:
    for _ in range(2):
        fleet.start(Release())
    with load:
        until(load.more(50))
        with forgotten(dsn) as other, newer.run(tmp_path, dsn, "migrate") as migration:
            pid = other.info.backend_pid
            migration.says("migrate.blocked")
            began = time.monotonic()
            migration.says("migrate.blocked", times=2)
            until(lambda: time.monotonic() > began + HELD, 2 * HELD)
            assert schema.check(dsn) == HEAD
            other.commit()
            assert migration.exit_code(60) == 0, migration.log
        assert f'by="pid {pid} (forgotten, idle in transaction for ' in migration.log
        assert schema.revision(dsn) == newer.head
        until(load.more(50))
    load.worked_off()
    assert load.longest_pause() < HELD / 2
