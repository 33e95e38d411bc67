"""What every connection of our own says it needs, whatever role and database have as defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq import AsyncJobQueue, ConfigError, JobQueue, PostgresStorage
from dbjobq.schema import migrate
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.way import NEEDED, WANTED, Way
from tests.storage.database import Database, database

__all__ = ["database"]

DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "datestyle": "German",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "idle_session_timeout": "1h",
    "lock_timeout": "1h",
    "statement_timeout": "1h",
}
"""What role or database may have."""
OURS = {**WANTED, **NEEDED, "client_encoding": "UTF8", "datestyle": "ISO"}
"""What our own connections have there."""
SETTINGS = "select lower(name), split_part(setting, ',', 1) from pg_settings where lower(name) = any (%s)"


@pytest.fixture
def strange(dsn: str, database: Database) -> str:
    """A database whose defaults are others than ours."""
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    for setting, value in DEFAULTS.items():
        database.connection.execute(
            sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
        )
    return dsn


@pytest.fixture
def storage(strange: str) -> Iterator[PostgresStorage]:
    with PostgresStorage(strange) as storage:
        yield storage


def settings(connection: psycopg.Connection[Any]) -> dict[str, str]:
    rows = connection.execute(SETTINGS, [list(OURS)])
    return dict(rows.fetchall())


async def asettings(connection: psycopg.AsyncConnection[Any]) -> dict[str, str]:
    rows = await connection.execute(SETTINGS, [list(OURS)])
    return dict(await rows.fetchall())


def lent(connections: Connections) -> dict[str, str]:
    with connections.connection() as connection:
        return settings(connection)


def lent_alone(connections: Connections) -> dict[str, str]:
    with connections.connection(alone=True) as connection:
        return settings(connection)


def directly(connections: Connections) -> dict[str, str]:
    with connections.connect_directly() as connection:
        return settings(connection)


def alent(connections: Connections) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with connections.aconnection() as connection:
            found = await asettings(connection)
        await connections.aclose()
        return found

    return asyncio.run(main())


def a_workers(connections: Connections) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with await connections.connect_session() as connection:
            return await asettings(connection)

    return asyncio.run(main())


def a_listeners(connections: Connections) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with await connections.connect_listener() as connection:
            return await asettings(connection)

    return asyncio.run(main())


@pytest.mark.parametrize("made", [lent, lent_alone, directly, alent, a_workers, a_listeners])
def test_each_of_our_connections_has_what_it_needs(
    storage: PostgresStorage, made: Callable[[Connections], dict[str, str]]
) -> None:
    assert set(DEFAULTS) == set(OURS)  # each is tried
    assert made(storage.connections) == OURS


def test_tables_are_made_where_the_defaults_are_strange(strange: str, database: Database) -> None:
    database.rows("drop schema dbjobq cascade")
    migrate(strange)
    with PostgresStorage(strange) as storage:
        storage.check().run()


def test_what_the_session_needs_outlives_whoever_resets_it(storage: PostgresStorage) -> None:
    with storage.connections.connection() as connection:
        connection.execute("discard all")
        assert settings(connection) == OURS


@pytest.mark.parametrize("given", ["dsn", "environment"])
def test_options_of_the_users_own_are_kept(dsn: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "-c work_mem=12345 -c statement_timeout=54321 -c default_transaction_isolation=serializable"
    if given == "dsn":
        dsn = make_conninfo(dsn, options=options)
    else:
        monkeypatch.setenv("PGOPTIONS", options)
    with Way(dsn).connect() as connection:
        assert connection.execute("show work_mem").fetchone() == ("12345kB",)
        assert settings(connection)["statement_timeout"] == "54321"
        assert settings(connection)["default_transaction_isolation"] == "read committed"


@pytest.mark.parametrize(
    "dsn", ["postgresql://app:hun@ter@db/x", "postgresql://app:hun/ter@db/x", "postgres://app:5/hunter@db:1/x?a=b"]
)
def test_a_password_that_a_url_ends_too_soon_is_refused_before_libpq_takes_its_end_for_a_host(dsn: str) -> None:
    with pytest.raises(ConfigError, match="%40 and %2F") as refused:
        Way(dsn)
    assert "hun" not in str(refused.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://app:hun%40%2Fter@db:5432/x",
        "postgresql://app:p@[::1]:5432/x",
        "postgresql://db:5432/x?application_name=a@b",
        "postgresql://app:hun?ter@db/x",
        "host=db password=hun@t/er@x user=a://b",
        "postgresql:///x?host=/tmp",
    ],
)
def test_a_password_that_can_be_told_is_taken(dsn: str) -> None:
    assert Way(dsn).conninfo


def shown(connection: psycopg.Connection[Any], name: LiteralString) -> str:
    ((value,),) = connection.execute("select current_setting(%s)", [name]).fetchall()
    return str(value)


def test_calls_by_hand_are_not_planned_anew_and_jobs_own_statements_are_as_ever(
    storage: PostgresStorage,
) -> None:
    queue = JobQueue(storage)
    for n in range(15):
        queue.enqueue("f", n=n)
        job = queue.dequeue()
        assert job is not None
        queue.complete(job)
    with storage.connections.connection() as connection:
        assert shown(connection, "enable_seqscan") == "off"
        rows = connection.execute(
            "select generic_plans, custom_plans from pg_prepared_statements where statement like '%%dbjobq.claim%%'"
            " or statement like '%%delete from \"dbjobq\".lease%%'"
        ).fetchall()
    assert rows
    assert all(generic and not custom for generic, custom in rows)
    with storage.transaction() as lent:
        assert shown(lent, "enable_seqscan") == shown(lent, "enable_hashjoin") == "on"
        assert shown(lent, "plan_cache_mode") == "auto"
    queue.stats()
    assert queue.dequeue() is None
    with storage.connections.connection() as connection:
        assert shown(connection, "enable_seqscan") == "off"


def test_calls_by_hand_on_a_loop_are_not_planned_anew(storage: PostgresStorage) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            assert await queue.dequeue() is None
            async with storage.connections.aconnection() as connection:
                assert await (await connection.execute("show plan_cache_mode")).fetchone() == ("force_generic_plan",)
            async with storage.atransaction() as lent:
                assert await (await lent.execute("show plan_cache_mode")).fetchone() == ("auto",)

    asyncio.run(main())
