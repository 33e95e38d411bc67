from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from dbjobq.cli.settings import Database, database_options
from dbjobq.errors import ConfigError
from dbjobq.storage.postgres.connect.address import libpq_form


def settings(*args: str, **env: str | None) -> Database:
    """What a command is told, given these options and variables."""
    found: list[Database] = []

    @click.command()
    @database_options
    def command(database: Database) -> None:
        found.append(database)

    unset = dict.fromkeys(("DBJOBQ_DSN", "DATABASE_URL", "DBJOBQ_SCHEMA", "DBJOBQ_LISTEN_DSN"))
    CliRunner().invoke(command, args, env={**unset, **env}, catch_exceptions=False)
    return found[0]


def test_the_option_comes_before_the_variables_and_dbjobq_s_before_the_common_one() -> None:
    env = {"DBJOBQ_DSN": "dbname=two", "DATABASE_URL": "dbname=three"}
    assert settings("--dsn", "dbname=one", **env).dsn == "dbname=one"
    assert settings(**env).dsn == "dbname=two"
    assert settings(**{**env, "DBJOBQ_DSN": ""}).dsn == "dbname=three"


def test_without_any_setting_libpq_s_variables_count() -> None:
    assert settings() == Database("", "dbjobq", None)


def test_schema_and_listen_dsn_come_from_options_and_variables() -> None:
    assert settings(DBJOBQ_SCHEMA="jobs", DBJOBQ_LISTEN_DSN="port=1") == Database("", "jobs", "port=1")
    assert settings("--schema=a", "--listen-dsn=port=2", DBJOBQ_SCHEMA="b").listen_dsn == "port=2"


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgres+x"]
)
def test_sqlalchemy_s_urls_are_understood(scheme: str) -> None:
    assert libpq_form(f"{scheme}://u:p+q://@h/db?a=b") == "postgresql://u:p+q://@h/db?a=b"


def test_a_url_of_another_database_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="mysql: URL") as refused:
        libpq_form("mysql+driver://user:secret@host/db")
    assert "secret" not in str(refused.value)


def test_a_child_process_is_told_by_variables_alone() -> None:
    told = Database("dbname=one", "jobs", None).environment()
    assert settings(**told) == Database("dbname=one", "jobs", None)
