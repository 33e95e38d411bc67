"""Which database a queue is on, when the call, or nobody, says."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import AsyncJobQueue, ConfigError, JobQueue, PostgresStorage, schema
from tests.storage.database import Database
from tests.support.server import Databases

NAMES = ("DBJOBQ_DSN", "DATABASE_URL", "DBJOBQ_SCHEMA", "DBJOBQ_LISTEN_DSN", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def url(dsn: str, scheme: str) -> str:
    where = conninfo_to_dict(dsn)
    rest = "&".join(f"{name}={where[name]}" for name in ("host", "port", "user", "password") if name in where)
    return f"{scheme}:///{where['dbname']}?{rest}"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
@pytest.mark.parametrize("variable", ["DBJOBQ_DSN", "DATABASE_URL", None])
def test_a_queue_finds_its_database(
    dsn: str, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str | None
) -> None:
    given = url(dsn, scheme)
    if variable is not None:
        monkeypatch.setenv(variable, given)
    with JobQueue() if variable else JobQueue(given) as queue:
        job_id = queue.enqueue("f", n=1)

    async def main() -> bool:
        async with AsyncJobQueue() if variable else AsyncJobQueue(given) as queue:
            return await queue.get_job(job_id) is not None

    assert asyncio.run(main())


def test_our_own_variable_comes_first_and_libpqs_last(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in conninfo_to_dict(dsn).items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), str(value))
    with JobQueue() as queue:
        queue.enqueue("f")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@/second")
    assert conninfo_to_dict(PostgresStorage().connections.way.conninfo)["dbname"] == "second"
    monkeypatch.setenv("DBJOBQ_DSN", "dbname=first")
    assert conninfo_to_dict(PostgresStorage().connections.way.conninfo)["dbname"] == "first"
    monkeypatch.setenv("DBJOBQ_DSN", "")
    assert conninfo_to_dict(PostgresStorage().connections.way.conninfo)["dbname"] == "second"


def test_the_schema_and_the_direct_way_come_from_the_environment_too(
    dsn: str, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setenv("DBJOBQ_SCHEMA", "other")
    assert len(schema.migrate(dsn)) == len(schema.migrate(dsn, "a third"))
    assert schema.check(dsn) == schema.revision(dsn)
    with JobQueue(dsn) as queue:
        queue.enqueue("f")
    assert database.value("select count(*) from other.job") == 1
    assert PostgresStorage(dsn, schema="mine").schema == "mine"
    monkeypatch.setenv("DBJOBQ_LISTEN_DSN", "dbname=direct")
    assert not PostgresStorage(dsn).connections.pooled  # it belongs to the DSN of the environment
    storage = PostgresStorage()
    assert storage.connections.pooled
    assert conninfo_to_dict(storage.connections.direct.conninfo)["dbname"] == "direct"
    assert conninfo_to_dict(PostgresStorage(listen_conninfo="dbname=x").connections.direct.conninfo)["dbname"] == "x"


def test_what_is_no_postgresql_is_refused_in_words(databases: Databases) -> None:
    with pytest.raises(ConfigError, match=r"mysql: URL, but must be one of PostgreSQL") as refused:
        JobQueue("mysql+driver://user:secret@host/db")
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"use SQLAlchemyStorage\(url\)"):
        JobQueue("sqlite:///jobs.db")
    with pytest.raises(TypeError, match="storage=5"):
        JobQueue(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
