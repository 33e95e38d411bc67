"""The server: what it is, how it is set up, who is heard."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage
from dbjobq.doctor import examine, server
from dbjobq.errors import NotSupported, StorageUnavailable
from tests.doctor.findings import only, troubles
from tests.storage.database import Database
from tests.support.server import Databases
from tests.support.waiting import until


def set_for_database(database: Database, name: str, value: str) -> None:
    which = sql.Identifier(database.connection.info.dbname), sql.Identifier(name), sql.Literal(value)
    database.connection.execute(sql.SQL("alter database {} set {} = {}").format(*which))


def test_on_a_sound_server_all_is_well(storage: PostgresStorage, queue: JobQueue) -> None:
    queue.enqueue("f")
    queue.options(delay=60).enqueue("f")
    queue.dequeue()
    assert troubles(storage) == []
    assert {f.check for f in examine(storage)} >= {"schema", "server", "settings", "horizon", "pooler", "states"}


def test_a_server_that_is_not_there_is_an_error() -> None:
    with PostgresStorage("host=/nonexistent dbname=x") as storage, pytest.raises(StorageUnavailable):
        examine(storage)


def test_another_storage_has_no_doctor() -> None:
    class Other:
        name = "OtherStorage"

    with pytest.raises(NotSupported, match="OtherStorage"):
        examine(Other())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - that is the test


def test_missing_tables_are_critical_and_the_server_is_judged_all_the_same(sound: Databases) -> None:
    with sound.fresh("template0") as empty, PostgresStorage(empty) as storage:
        finding = only(storage)
        assert (finding.check, finding.severity) == ("schema", "critical")
        assert "dbjobq migrate" in finding.found
        assert "settings" in {f.check for f in examine(storage)}


def test_newer_tables_are_critical(storage: PostgresStorage, database: Database) -> None:
    database.rows("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
    finding = only(storage)
    assert finding.severity == "critical"
    assert "upgrade dbjobq" in finding.found


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("synchronous_commit", "off", "notice"),
        ("track_counts", "off", "warning"),
        ("idle_in_transaction_session_timeout", "0", "notice"),
        ("client_connection_check_interval", "0", "notice"),
        ("tcp_keepalives_idle", "0", "notice"),
        ("tcp_keepalives_idle", "7200", "notice"),
    ],
)
def test_a_setting_worth_changing_is_named(dsn: str, database: Database, name: str, value: str, severity: str) -> None:
    set_for_database(database, name, value)
    with PostgresStorage(dsn) as storage:
        finding = only(storage)
    assert (finding.check, finding.severity) == ("settings", severity)
    assert f"{name} = {value}" in finding.found


def test_settings_that_lose_the_database_are_critical(databases: Databases) -> None:
    with databases.fresh() as careless, PostgresStorage(careless) as storage:  # the tests' own server is
        with Database(careless) as database:
            if database.value("show fsync") == "on":
                pytest.skip("this server is somebody's own, and sound")
        found = {f.found.partition(" ")[0]: f.severity for f in troubles(storage) if f.check == "settings"}
    assert found["fsync"] == found["full_page_writes"] == "critical"
    assert found["synchronous_commit"] == "notice"


def test_autovacuum_off_is_a_warning(storage: PostgresStorage, database: Database) -> None:
    database.rows("alter system set autovacuum = off")
    try:
        database.rows("select pg_reload_conf()")
        until(lambda: database.value("show autovacuum") == "off")
        finding = until(lambda: next((f for f in troubles(storage) if f.check == "settings"), None))
    finally:
        database.rows("alter system reset autovacuum")
        database.rows("select pg_reload_conf()")
    assert finding is not None
    assert (finding.severity, finding.found.partition(":")[0]) == ("warning", "autovacuum = off")


def test_a_server_that_takes_no_writes_is_critical(dsn: str) -> None:
    with PostgresStorage(make_conninfo(dsn, options="-c default_transaction_read_only=on")) as storage:
        finding = only(storage)
    assert (finding.check, finding.severity) == ("server", "critical")
    assert "read-only" in finding.found


def test_a_standby_and_an_old_server_are_critical() -> None:
    row = {"number": 140009, "version": "14.9", "standby": True, "read_only": True, "sees_all": True}
    found = server.judge_server([{**row, "connections": 1, "room": 100, "role": "x"}])
    assert [f.severity for f in found] == ["critical", "critical"]
    assert "14.9" in found[0].found
    assert "a standby" in found[1].found


def test_a_server_that_is_nearly_full_is_a_warning(dsn: str, storage: PostgresStorage) -> None:
    with ExitStack() as stack:
        for _ in range(33):
            stack.enter_context(psycopg.connect(dsn))
        finding = only(storage)
    assert (finding.check, finding.severity) == ("server", "warning")
    assert "max_connections=40" in finding.found


def test_where_nothing_arrives_it_is_said_that_workers_only_poll(dsn: str, sound: Databases) -> None:
    with sound.fresh("template0") as elsewhere, PostgresStorage(dsn, listen_conninfo=elsewhere) as storage:
        finding = only(storage)
    assert (finding.check, finding.severity) == ("pooler", "warning")
    assert "--listen-dsn" in finding.advice


def test_a_notification_queue_that_fills_is_a_warning_that_names_who_sits_in_a_transaction(
    storage: PostgresStorage, database: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FILLING", 0.0)
    other.rows("set application_name = 'forgotten'")
    other.rows("listen something")
    other.rows("begin")
    other.rows("select 1")
    database.rows("select pg_notify('something', n || repeat('x', 7000)) from generate_series(1, 50) as n")
    finding = only(storage)
    assert (finding.check, finding.severity) == ("notifications", "warning")
    assert "(forgotten)" in finding.advice
    other.rows("rollback")
    assert server.judge_notifications([{"usage": 0.5, "idle": None}])[0].severity == "critical"


def test_sessions_that_listen_are_counted(storage: PostgresStorage, other: Database) -> None:
    other.rows('listen "dbjobq"')
    found = {f.check: f.found for f in examine(storage)}
    assert found["notifications"].startswith("1 session")


def test_a_database_in_another_encoding_is_worth_a_notice() -> None:
    (finding,) = server.judge_settings([{"name": "server_encoding", "value": "LATIN1"}])
    assert (finding.severity, finding.found.partition(":")[0]) == ("notice", "server_encoding = LATIN1")
