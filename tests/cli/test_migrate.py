from __future__ import annotations

import json

import psycopg

from dbjobq import schema
from dbjobq.storage.version import HEAD
from tests.cli.support import invoke


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
        connection.execute("update dbjobq.schema_version set version_num = '9999'")
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


def test_an_unknown_revision_is_one_line(dsn: str) -> None:
    result = invoke(dsn, "migrate", "--to", "nope")
    assert result.exit_code == 1
    assert "no migration 'nope'" in result.stderr


def test_what_excludes_each_other_is_a_wrong_call(dsn: str) -> None:
    assert invoke(dsn, "migrate", "--sql", "--check").exit_code == 2
