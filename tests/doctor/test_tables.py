"""The tables: who keeps their dead rows, how many there are, what becomes of the indexes."""

from __future__ import annotations

import pytest

from dbjobq import PostgresStorage
from dbjobq.doctor import tables
from tests.doctor.findings import only, troubles
from tests.storage.database import Database

FILL = """insert into dbjobq.ready (position, queue, priority, job_id)
          select n, 1, 5, gen_random_uuid() from generate_series(1, %s) as n"""


@pytest.fixture
def vacuumed(database: Database) -> Database:
    """A database whose statistics tell what was done in this session at once."""
    database.rows("vacuum analyze dbjobq.ready")
    return database


def told(database: Database) -> None:
    """Have the statistics told of what this session did."""
    database.rows("select pg_stat_force_next_flush()")
    database.rows("select 1")


def test_a_transaction_that_is_held_is_named_with_its_process_and_its_application(
    storage: PostgresStorage, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "HELD", 0.0)
    other.rows("set application_name = 'report'")
    other.rows("begin isolation level repeatable read")
    pid = other.value("select pg_backend_pid()")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("horizon", "warning")
    assert f"pid {pid}" in finding.found
    assert "'report'" in finding.found
    assert "idle in transaction" in finding.found
    assert f"pg_terminate_backend({pid})" in finding.advice
    monkeypatch.setattr(tables, "HELD_LONG", 0.0)
    assert only(storage).severity == "critical"
    other.rows("rollback")
    assert troubles(storage) == []


def test_a_prepared_transaction_is_named(
    storage: PostgresStorage, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "HELD", 0.0)
    other.rows("begin")
    other.rows("update dbjobq.queue set wanted = wanted")
    other.rows("prepare transaction 'left behind'")
    finding = only(storage)
    other.rows("rollback prepared 'left behind'")
    assert (finding.check, finding.severity) == ("horizon", "warning")
    assert "prepared transaction 'left behind'" in finding.found
    assert "rollback prepared" in finding.advice


def test_a_replication_slot_is_judged_by_how_many_transactions_it_is_behind(
    storage: PostgresStorage, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "HORIZON_BEHIND", -1)
    other.rows("select pg_create_logical_replication_slot('unused', 'pgoutput')")
    finding = only(storage)
    other.rows("select pg_drop_replication_slot('unused')")
    assert (finding.check, finding.severity) == ("horizon", "warning")
    assert "replication slot 'unused', application 'pgoutput', inactive" in finding.found
    assert "pg_drop_replication_slot('unused')" in finding.advice


def test_a_standby_is_named() -> None:
    row = {"kind": "standby", "name": "10.0.0.7", "application": "replica", "role": "repl", "state": "streaming"}
    (finding,) = tables.judge_horizon([{**row, "seconds": None, "behind": 2_000_000}])
    assert finding.found.startswith("the standby 10.0.0.7, role 'repl', application 'replica', streaming: keeps")
    assert "hot_standby_feedback" in finding.advice


def test_dead_rows_that_nobody_removes_are_told(storage: PostgresStorage, vacuumed: Database) -> None:
    vacuumed.rows(FILL, 51_000)
    vacuumed.rows("delete from dbjobq.ready")
    told(vacuumed)
    finding = only(storage)
    assert (finding.check, finding.severity) == ("dead rows", "warning")
    assert "ready has 51,000 dead rows and 0 live ones" in finding.found


def test_autovacuum_that_is_late_is_told(storage: PostgresStorage, database: Database) -> None:
    database.rows(FILL, 11_000)
    database.rows("delete from dbjobq.ready")
    told(database)
    finding = only(storage)
    assert (finding.check, finding.severity) == ("autovacuum", "warning")
    assert "autovacuum is due at 5,000, and was never seen there" in finding.found
    row = {"name": "ready", "autovacuum": True, "dead": 20_000, "due": 5000.0}
    assert "came last 2 h ago" in tables.judge_autovacuum([{**row, "vacuumed": 7200.0}])[0].found
    assert tables.judge_autovacuum([{**row, "vacuumed": 30.0}]) == []


def test_autovacuum_switched_off_for_a_table_is_a_warning(storage: PostgresStorage, database: Database) -> None:
    database.rows("alter table dbjobq.lease set (autovacuum_enabled = off)")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("autovacuum", "warning")
    assert "off for lease" in finding.found


def test_a_table_much_larger_than_its_rows_is_told(
    storage: PostgresStorage, vacuumed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOAT", 1_000_000)
    vacuumed.rows(FILL, 51_000)
    vacuumed.rows("delete from dbjobq.ready")
    told(vacuumed)
    vacuumed.rows("vacuum analyze dbjobq.ready")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("bloat", "notice")
    assert "ready and its indexes take" in finding.found
    assert finding.found.endswith("for 0 rows")


def test_an_index_that_is_invalid_or_missing_is_critical(storage: PostgresStorage, database: Database) -> None:
    database.rows("update pg_index set indisvalid = false where indexrelid = 'dbjobq.ready_claim'::regclass")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("indexes", "critical")
    assert "reindex index concurrently ready_claim" in finding.advice
    database.rows("drop index dbjobq.ready_claim")
    finding = only(storage)
    assert finding.severity == "critical"
    assert "ready_claim is missing" in finding.found


def test_an_index_that_a_reindex_left_behind_is_a_warning(storage: PostgresStorage, database: Database) -> None:
    database.rows("create index ready_claim_ccnew on dbjobq.ready (queue)")
    database.rows("update pg_index set indisvalid = false where indexrelid = 'dbjobq.ready_claim_ccnew'::regclass")
    finding = only(storage)
    assert finding.severity == "warning"
    assert "drop index ready_claim_ccnew" in finding.advice


def test_the_indexes_it_knows_are_those_that_the_migrations_make(storage: PostgresStorage) -> None:
    assert {row["name"] for row in storage.diagnose("doctor_indexes").run()} == tables.INDEXES


def test_a_publication_that_includes_the_tables_is_told_of(storage: PostgresStorage, database: Database) -> None:
    database.rows("create publication everything for all tables")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("publications", "notice")
    assert finding.found.startswith("publication 'everything' (for all tables) includes")
    assert "for tables in schema" in finding.advice


@pytest.mark.parametrize("identity", ["default", "nothing", "using index given"])
def test_a_publication_that_makes_the_server_refuse_claims_is_critical(
    storage: PostgresStorage, database: Database, identity: str
) -> None:
    if identity == "using index given":
        database.rows("create unique index given on dbjobq.ready (job_id)")
    database.rows(f"alter table dbjobq.ready replica identity {identity}")  # pyright: ignore[reportArgumentType]
    database.rows("create publication ours for table dbjobq.ready, dbjobq.job")
    if identity == "using index given":
        assert only(storage).severity == "notice"
        database.rows("drop index dbjobq.given")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("publications", "critical")
    assert finding.found.startswith("publication 'ours' includes ready: ")


def test_a_publication_of_inserts_alone_or_of_other_schemas_stops_nothing(
    storage: PostgresStorage, database: Database
) -> None:
    database.rows("alter table dbjobq.ready replica identity default")
    database.rows("create publication inserts for table dbjobq.ready with (publish = 'insert')")
    assert only(storage).severity == "notice"
    database.rows("drop publication inserts")
    database.rows("create publication own for tables in schema public")
    assert troubles(storage) == []
