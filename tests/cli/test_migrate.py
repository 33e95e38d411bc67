from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from dbjobq import schema
from dbjobq.storage.postgres import schema_version
from dbjobq.storage.postgres.schema_version import HEAD
from tests.cli.support import invoke
from tests.deploys.release import BREAKING, column, put_on_top

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.deploys.release import Migration


def test_it_makes_the_tables_and_says_so(empty_dsn: str) -> None:
    result = invoke(empty_dsn, "migrate")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("0001  ")
    assert result.stdout.endswith(f"applied, now at {HEAD}\n")
    assert invoke(empty_dsn, "migrate", "--check").exit_code == 0


def test_a_second_time_there_is_nothing_to_do(dsn: str) -> None:
    assert "nothing to do" in invoke(dsn, "migrate").stdout
    assert json.loads(invoke(dsn, "migrate", "--json").stdout) == {"schema": "dbjobq", "revision": HEAD, "steps": []}


def test_it_prints_its_steps_as_json(empty_dsn: str) -> None:
    steps = json.loads(invoke(empty_dsn, "migrate", "--json", "--schema", "jobs").stdout)["steps"]
    assert steps[0]["revision"] == "0001"
    assert schema.check(empty_dsn, "jobs") == HEAD


def test_check_only_looks(empty_dsn: str) -> None:
    result = invoke(empty_dsn, "migrate", "--check")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("select to_regnamespace('dbjobq')").fetchone() == (None,)


def test_check_tells_the_revision_as_json(dsn: str) -> None:
    assert json.loads(invoke(dsn, "migrate", "--check", "--json").stdout) == {"schema": "dbjobq", "revision": HEAD}


def test_check_refuses_newer_tables(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
    result = invoke(dsn, "migrate", "--check")
    assert result.exit_code == 1
    assert "newer" in result.stderr


def test_the_sql_it_prints_makes_the_tables(empty_dsn: str) -> None:
    printed = invoke(None, "migrate", "--sql")
    assert printed.exit_code == 0
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(printed.stdout.encode())
    assert invoke(empty_dsn, "migrate", "--check").exit_code == 0


def test_going_back_to_nothing_asks_before_it_deletes_jobs(dsn: str) -> None:
    refused = invoke(dsn, "migrate", "--to", "base", stdin="n\n")
    assert refused.exit_code == 1
    assert "all jobs" in refused.stderr
    assert invoke(dsn, "migrate", "--to", "base").exit_code == 1  # nobody there to answer
    assert invoke(dsn, "migrate", "--check").exit_code == 0
    assert invoke(dsn, "migrate", "--to", "base", stdin="y\n").exit_code == 0
    assert invoke(dsn, "migrate", "--check").exit_code == 1


def test_going_back_does_not_ask_when_told_so(dsn: str) -> None:
    result = invoke(dsn, "migrate", "--to", "base", "--yes")
    assert result.exit_code == 0
    assert "undone" in result.stdout


NEXT: Final = f"{int(HEAD) + 1:04}"


@contextmanager
def next_release(folder: Path, *migrations: Migration) -> Generator[None]:
    """Be a library that has more migrations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_version, "HEAD", put_on_top(folder, *migrations))
        patch.setattr(schema, "HEAD", schema_version.HEAD)
        patch.setattr("dbjobq.schema.migrations.migrations_dir", lambda: folder)
        yield


def test_one_step_back_asks_too_and_says_what_it_did(dsn: str, tmp_path: Path) -> None:
    with next_release(tmp_path / "next", column("done", "int")):
        assert f"1 migration applied, now at {NEXT}" in invoke(dsn, "migrate").stdout
        refused = invoke(dsn, "migrate", "--to", HEAD, stdin="n\n")
        assert refused.exit_code == 1
        assert "later migrations" in refused.stderr
        undone = invoke(dsn, "migrate", "--to", HEAD, "--yes")
        assert undone.stdout.splitlines()[-1] == f"schema 'dbjobq': 1 migration undone, now at {HEAD}"
    assert invoke(dsn, "migrate", "--check").exit_code == 0


def test_of_newer_tables_that_it_runs_on_it_says_so(dsn: str, tmp_path: Path) -> None:
    with next_release(tmp_path / "next", column("done", "int")):
        older = invoke(dsn, "migrate", "--check")
        assert (older.exit_code, f"older than this library's {NEXT}" in older.stderr) == (1, True)
        assert invoke(dsn, "migrate").exit_code == 0
        as_needed = f"schema 'dbjobq' is at revision {NEXT}, as this release needs it\n"
        assert invoke(dsn, "migrate", "--check").stdout == as_needed
    fits = f"schema 'dbjobq' is at revision {NEXT}, newer than this release's {HEAD}, which runs on it\n"
    assert invoke(dsn, "migrate", "--check").stdout == fits
    assert invoke(dsn, "migrate").stdout == f"schema 'dbjobq': nothing to do, now at {NEXT}\n"
    assert json.loads(invoke(dsn, "migrate", "--json").stdout)["revision"] == NEXT
    assert invoke(dsn, "stats").exit_code == 0
    doctor = json.loads(invoke(dsn, "doctor", "--json").stdout)
    assert f"newer than this library's {HEAD}, which runs on it" in json.dumps(doctor)
    back = invoke(dsn, "migrate", "--to", "base", "--yes")
    assert (back.exit_code, "undo it with the release of dbjobq that has it" in back.stderr) == (1, True)


def test_newer_tables_that_it_does_not_run_on_are_refused(dsn: str, tmp_path: Path) -> None:
    with next_release(tmp_path / "next", BREAKING, column("done", "int")):
        assert invoke(dsn, "migrate").exit_code == 0
    for command in (["migrate"], ["migrate", "--check"], ["stats"]):
        refused = invoke(dsn, *command)
        assert refused.exit_code == 1
        assert f"newer than this library's {HEAD}, and needs a library of {NEXT} or later" in refused.stderr
    with next_release(tmp_path / "again", BREAKING, column("done", "int")):
        assert invoke(dsn, "migrate", "--to", HEAD, "--yes").exit_code == 0
    assert invoke(dsn, "migrate", "--check").exit_code == 0


def test_it_gives_up_in_the_end_and_says_who_is_in_its_way(dsn: str, tmp_path: Path) -> None:
    with next_release(tmp_path / "next", column("done", "int")), psycopg.connect(dsn) as other:
        other.execute("select from dbjobq.done")
        result = invoke(dsn, "migrate", "--lock-timeout=0.05", "--timeout=0.2")
        assert result.exit_code == 1
        said = f"schema 'dbjobq' could not be had within 0.2 s; they were held by pid {other.info.backend_pid} "
        assert said in result.stderr
    assert invoke(dsn, "migrate", "--check").exit_code == 0


def test_what_does_not_lead_back_does_not_ask(empty_dsn: str, dsn: str) -> None:
    assert "nothing to do" in invoke(empty_dsn, "migrate", "--to", "base").stdout
    assert invoke(empty_dsn, "migrate", "--to", HEAD).exit_code == 0
    assert "nothing to do" in invoke(dsn, "migrate", "--to", HEAD).stdout


@pytest.mark.parametrize("command", ["migrate", "migrate --check", "stats", "enqueue x", "jobs list", "jobs show x"])
@pytest.mark.parametrize("revision", ["0000", "1a2b3c4d5e6f", ""])
def test_a_revision_that_is_none_of_ours_is_said_to_be_that(dsn: str, command: str, revision: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.schema_version set version_num = %s", (revision,))
    result = invoke(dsn, *command.split())
    assert result.exit_code == 1
    assert f"{revision!r}, which no release of dbjobq has" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["stats", "enqueue x", "jobs list", "jobs retry --all-failed", "jobs cancel x"])
def test_commands_refuse_newer_tables(dsn: str, command: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
    result = invoke(dsn, *command.split())
    assert result.exit_code == 1
    assert "newer than this library's" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unknown_revision_is_one_line(dsn: str) -> None:
    result = invoke(dsn, "migrate", "--to", "nope")
    assert result.exit_code == 1
    assert "no migration 'nope'" in result.stderr


def test_what_excludes_each_other_is_a_wrong_call(dsn: str) -> None:
    assert invoke(dsn, "migrate", "--sql", "--check").exit_code == 2
