from __future__ import annotations

import json

import pytest

from dbjobq.schema.roles import KINDS
from tests.cli.support import invoke


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints_the_sql_without_a_database(kind: str) -> None:
    result = invoke("host=/nonexistent", "grant", "--role", "web", "--as", kind, "--sql", "--schema", "jobs")
    assert result.exit_code == 0
    assert '"jobs"' in result.stdout
    assert all('"web";' in line for line in result.stdout.splitlines())


def test_it_tells_the_statements_as_json() -> None:
    told = json.loads(invoke(None, "grant", "--role", "web", "--as", "reader", "--sql", "--json").stdout)
    assert told["role"] == "web"
    assert told["as"] == "reader"
    assert len(told["statements"]) == 2


def test_it_grants(dsn: str) -> None:
    role = invoke(dsn, "grant", "--role", "pg_monitor", "--as", "reader")  # a role that every server has
    assert role.exit_code == 0, role.output
    assert role.stdout == "role 'pg_monitor' is a reader in schema 'dbjobq'\n"


def test_a_role_that_is_not_there_is_one_line(dsn: str) -> None:
    result = invoke(dsn, "grant", "--role", "nobody at all", "--as", "worker")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: there is no role 'nobody at all'")
    assert result.stderr.count("\n") == 1
