"""Migrations that meet others: who also migrates, who has a lock, who kills them half-way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import StorageUnavailable, schema
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from dbjobq.storage.postgres.schema_version import HEAD
from tests.deploys.release import INDEX, Migration, column, put_on_top
from tests.storage.database import Database, database
from tests.support.pgbouncer import PGBOUNCER, PgBouncer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    Add = Callable[..., str]

__all__ = ["database"]

VALID = "select indisvalid from pg_index where indexrelid = to_regclass('dbjobq.done_finished')"


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Add:
    """Puts migrations on top of ours; returns the newest's revision."""

    def add(*migrations: Migration) -> str:
        folder = tmp_path / "migrations"
        monkeypatch.setattr("dbjobq.schema.migrations.migrations_dir", lambda: folder)
        return put_on_top(folder, *migrations)

    return add


def after(head: str, steps: int) -> str:
    return f"{int(head) + steps:04}"


def test_ten_that_make_an_index_at_once_make_it_once(dsn: str, database: Database, add: Add) -> None:
    """Whoever waits must have no snapshot: `create index concurrently` waits for those who have."""
    to = add(column("done", "int"), INDEX)
    with ThreadPoolExecutor(10) as pool:
        reports = list(pool.map(partial(migrate, to=to), [dsn] * 10))
    assert sorted(len(report) for report in reports) == [0] * 9 + [2]
    assert database.value(VALID) is True


@pytest.mark.parametrize(
    "options", ["-c default_transaction_isolation=repeatable\\ read", "-c idle_in_transaction_session_timeout=100"]
)
def test_what_a_role_has_set_does_not_end_the_turn_or_make_an_index_wait_for_it(
    dsn: str, database: Database, add: Add, options: str
) -> None:
    probe = (
        "create table {schema}.probe as select count(*) from pg_locks where locktype = 'advisory' and granted"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    slow = Migration("Slow", ("select pg_sleep(0.4)", probe), ("drop table {schema}.probe",))
    to = add(slow, INDEX)
    migrate(make_conninfo(dsn, options=f"{options} -c statement_timeout=20000"), to=to)
    assert database.value("select count from dbjobq.probe") == 1
    assert database.value(VALID) is True


def test_an_index_that_was_left_half_made_is_made_anew(dsn: str, database: Database, add: Add) -> None:
    to = add(INDEX)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(dsn) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select from dbjobq.queue")  # a snapshot, which the index waits for at the end
        migration = pool.submit(migrate, dsn, to=to)
        making = "select pid from pg_stat_activity where query like 'create index concurrently%%' and datname = %s"
        ((pid,),) = until(lambda: database.rows(VALID) and database.rows(making, old.info.dbname))
        database.rows("select pg_terminate_backend(%s)", pid)
        with pytest.raises(StorageUnavailable):
            migration.result(60)
    assert database.value(VALID) is False
    assert schema.check(dsn) == HEAD
    assert len(migrate(dsn, to=to)) == 1
    assert database.value(VALID) is True


def test_an_index_that_was_made_before_the_process_died_is_kept(dsn: str, database: Database, add: Add) -> None:
    to = add(INDEX)
    database.rows("create index done_finished on dbjobq.done (finished_at)")
    was = database.value("select 'dbjobq.done_finished'::regclass::oid")
    assert len(migrate(dsn, to=to)) == 1
    assert database.value("select 'dbjobq.done_finished'::regclass::oid") == was
    assert len(migrate(dsn, to=HEAD)) == 1
    assert database.rows(VALID) == []


def test_what_is_done_stays_done_while_the_next_cannot_have_its_lock(dsn: str, database: Database, add: Add) -> None:
    to = add(column("done", "int"), column("ready", "int"))
    with psycopg.connect(dsn) as other:
        other.execute("select from dbjobq.ready")
        with pytest.raises(StorageUnavailable, match=rf"pid {other.info.backend_pid} \(unnamed, idle in trans"):
            migrate(dsn, to=to, lock_timeout=0.05, timeout=0.3)
    assert schema.check(dsn) == after(HEAD, 1)
    assert [step.revision for step in migrate(dsn, to=to)] == [to]


def test_all_locks_of_a_migration_must_come_within_the_time_for_one(dsn: str, database: Database, add: Add) -> None:
    probe = "insert into {schema}.probe select setting::int from pg_settings where name = 'lock_timeout'"
    slow = ("create table {schema}.probe (left_ms int)", probe, "select pg_sleep(0.2)", probe, "select pg_sleep(0.4)")
    to = add(Migration("Slow", (*slow, probe), ("drop table {schema}.probe",)))
    migrate(dsn, to=to)
    first, second, last = (row[0] for row in database.rows("select left_ms from dbjobq.probe order by left_ms desc"))
    assert 500 >= first >= second + 200
    assert last == 1  # and not 0, which is no limit


def test_who_waits_for_another_migration_gives_up_in_the_end(dsn: str) -> None:
    with schema.turn_to_migrate(dsn) as turn:
        pid = turn.holder.info.backend_pid
        with pytest.raises(StorageUnavailable, match=f"another process, of pid {pid} on the server"):
            migrate(dsn, timeout=0.2)
        migrate(dsn, "elsewhere")
    assert migrate(dsn, timeout=0.2) == []


@pytest.mark.slow
@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")
def test_ten_migrate_through_a_pooler(add: Add) -> None:
    """Each connection of theirs may be another of the server's for each transaction; three there are."""
    to = add(column("done", "int"), INDEX)
    with EmbeddedPostgres(tcp=True) as server, TemporaryDirectory() as home:
        direct = server.dsn(tcp=True)
        bouncer = PgBouncer(direct, Path(home))
        try:
            with ThreadPoolExecutor(10) as pool:
                reports = list(pool.map(partial(migrate, to=to), [bouncer.dsn] * 10))
        finally:
            bouncer.stop()
        assert sorted(len(report) for report in reports) == [0] * 9 + [int(to)]
        with Database(direct) as database:
            assert database.value(VALID) is True
            assert database.rows("select from pg_locks where locktype = 'advisory'") == []


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_times_are_above_zero(dsn: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"lock_timeout={value}"):
        migrate(dsn, lock_timeout=value)
    with pytest.raises(ValueError, match=f"timeout={value}"):
        migrate(dsn, timeout=value)
