"""The tables' migrations: applied, undone, refused, printed, and taken into a user's own Alembic history."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import dbjobq.schema
from dbjobq import JobQueue, PostgresStorage, SchemaError
from dbjobq.schema import HEAD, Applied, migrate, migration_sql, migrations_dir, offline_sql

if TYPE_CHECKING:
    from tests.support.server import Databases

ROOT = Path(__file__).parents[2]

CATALOGUE = """
select 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attcompression::text
  from pg_class c join pg_attribute a on a.attrelid = c.oid
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relnamespace = %(schema)s::regnamespace and a.attnum > 0
union all
select 'relation', relname, relkind::text, coalesce(reloptions::text, ''), '', '', '', ''
  from pg_class where relnamespace = %(schema)s::regnamespace
union all
select 'index', indexname, indexdef, '', '', '', '', '' from pg_indexes where schemaname = %(name)s
union all
select 'constraint', conname, pg_get_constraintdef(oid), '', '', '', '', ''
  from pg_constraint where connamespace = %(schema)s::regnamespace
union all
select 'view', viewname, definition, '', '', '', '', '' from pg_views where schemaname = %(name)s
union all
select 'row', table_name, value, '', '', '', '', ''
  from (values ('queue')) as t (table_name), lateral (select name as value from {schema}.queue order by id) as row
union all
select 'row', 'schema_version', version_num, compatible_from, '', '', '', '' from {schema}.schema_version
order by 1, 2, 3
"""


def catalogue(dsn: str, schema: str = "dbjobq") -> list[tuple[str, ...]]:
    """Everything that the migrations have made, as text."""
    query = sql.SQL(CATALOGUE).format(schema=sql.Identifier(schema))
    with psycopg.connect(dsn) as connection:
        return connection.execute(query, {"schema": f'"{schema}"', "name": schema}).fetchall()


def revision(dsn: str, schema: str = "dbjobq") -> str | None:
    with psycopg.connect(dsn) as connection:
        query = sql.SQL("select version_num from {}.schema_version").format(sql.Identifier(schema))
        row = connection.execute(query).fetchone()
    return None if row is None else str(row[0])


def works(dsn: str, schema: str = "dbjobq") -> bool:
    with PostgresStorage(dsn, schema=schema) as storage:
        storage.check().run()
        queue = JobQueue(storage)
        queue.enqueue("f")
        job = queue.dequeue()
        assert job is not None
        queue.complete(job)
        return queue.stats()["completed"] == 1


def test_migrate_reports_what_it_applied_and_then_has_nothing_to_do(empty_dsn: str) -> None:
    applied = migrate(empty_dsn)
    assert [step.revision for step in applied] == [f"{n:04}" for n in range(1, int(HEAD) + 1)]
    assert applied[0] == Applied("0001", "The tables of the queue: an immutable body, and small rows that move")
    before = catalogue(empty_dsn)
    assert migrate(empty_dsn) == []
    assert catalogue(empty_dsn) == before
    assert dbjobq.schema.check(empty_dsn) == HEAD
    assert works(empty_dsn)


def test_down_and_up_again_gives_the_same_tables(empty_dsn: str) -> None:
    up = migrate(empty_dsn)
    before = catalogue(empty_dsn)
    down = migrate(empty_dsn, to="base")
    assert down == [step._replace(undone=True) for step in up[::-1]]
    with pytest.raises(SchemaError, match="dbjobq migrate"):
        dbjobq.schema.check(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        left = connection.execute("select relname from pg_class where relnamespace = 'dbjobq'::regnamespace").fetchall()
    assert {row[0] for row in left} <= {"schema_version", "schema_version_pkc"}
    assert migrate(empty_dsn, to="base") == []
    assert migrate(empty_dsn) == up
    assert catalogue(empty_dsn) == before
    assert works(empty_dsn)


def test_migrations_can_be_applied_one_by_one(empty_dsn: str, dsn: str) -> None:
    for number in range(1, int(HEAD) + 1):
        assert [step.revision for step in migrate(empty_dsn, to=f"{number:04}")] == [f"{number:04}"]
    assert catalogue(empty_dsn) == catalogue(dsn)
    for number in reversed(range(1, int(HEAD))):
        assert [step.revision for step in migrate(empty_dsn, to=f"{number:04}")] == [f"{number + 1:04}"]


def test_ten_that_migrate_at_once_apply_everything_once(empty_dsn: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        reports = list(pool.map(migrate, [empty_dsn] * 10))
    assert sorted(len(report) for report in reports) == [0] * 9 + [int(HEAD)]
    assert works(empty_dsn)


def test_processes_that_migrate_at_once_apply_everything_once(empty_dsn: str) -> None:
    script = "import sys; from dbjobq.schema import migrate; print(len(migrate(sys.argv[1])))"
    started = [
        subprocess.Popen([sys.executable, "-c", script, empty_dsn], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = sorted(int(process.communicate(timeout=60)[0]) for process in started)
    assert said == [0, 0, int(HEAD)]


@pytest.mark.parametrize("schema", ["My Schema", "größe", "a-b.c", "select", "x" * 63, "a;b--"])
def test_any_name_can_be_the_schemas(empty_dsn: str, schema: str) -> None:
    migrate(empty_dsn, schema)
    assert works(empty_dsn, schema)
    assert dbjobq.schema.check(empty_dsn, schema) == HEAD
    migrate(empty_dsn, schema, to="base")
    migrate(empty_dsn, schema)
    assert works(empty_dsn, schema)


def test_nothing_is_made_outside_the_schema(empty_dsn: str) -> None:
    everything = "select oid from pg_class union select oid from pg_type union select oid from pg_proc"
    strange = (
        "select relname from pg_class where relnamespace not in ('dbjobq'::regnamespace, 'pg_toast'::regnamespace)"
        " and oid not in (select unnest(%s::oid[]))"
    )
    with psycopg.connect(empty_dsn) as connection:
        before = [row[0] for row in connection.execute(everything).fetchall()]
        connection.commit()
        migrate(empty_dsn)
        assert connection.execute(strange, (before,)).fetchall() == []


@pytest.mark.parametrize("to", ["0000", "9999", "head", "", "1", "'; drop schema dbjobq; --"])
def test_an_unknown_revision_is_refused(dsn: str, to: str) -> None:
    with pytest.raises(SchemaError, match="no migration") as caught:
        migrate(dsn, to=to)
    assert "\n" not in str(caught.value)
    assert HEAD in str(caught.value)
    assert revision(dsn) == HEAD


def test_tables_that_are_newer_are_refused_by_all(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
    with PostgresStorage(dsn) as storage:
        for call in (
            lambda: migrate(dsn),
            lambda: migrate(dsn, to="base"),
            lambda: dbjobq.schema.check(dsn),
            storage.check().run,
        ):
            with pytest.raises(SchemaError, match=r"9999.*newer.*upgrade dbjobq"):
                call()
    assert revision(dsn) == "9999"


def test_tables_that_are_older_are_refused_until_they_are_migrated(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbjobq.storage.postgres.schema_version.HEAD", f"{int(HEAD) + 1:04}")
    with PostgresStorage(dsn) as storage, pytest.raises(SchemaError, match=rf"{HEAD}.*older.*dbjobq migrate"):
        storage.check().run()


@pytest.mark.parametrize("foreign", ["0000", "1a2b3c4d5e6f", "00001"])
def test_a_revision_that_no_release_has_is_refused_by_all(dsn: str, foreign: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("update dbjobq.schema_version set version_num = %s", (foreign,))
    with PostgresStorage(dsn) as storage:
        for call in (lambda: migrate(dsn), lambda: dbjobq.schema.check(dsn), storage.check().run):
            with pytest.raises(SchemaError, match=f"'{foreign}', which no release of dbjobq has"):
                call()


def test_a_role_that_may_not_create_schemas_can_migrate_one_it_owns(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        role = sql.Identifier("owner_" + connection.info.dbname)
        connection.execute(sql.SQL("create role {} login").format(role))
        connection.execute(sql.SQL("create schema dbjobq authorization {}").format(role))
        connection.execute(
            sql.SQL("revoke create on database {} from public").format(sql.Identifier(connection.info.dbname))
        )
        try:
            limited = make_conninfo(empty_dsn, options=f"-c role=owner_{connection.info.dbname}")
            assert len(migrate(limited)) == int(HEAD)
            assert works(limited)
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(role))
            connection.execute(sql.SQL("drop role {}").format(role))


# Other ways.


@pytest.mark.parametrize("schema", ["dbjobq", "My Schema"])
def test_the_sql_that_is_printed_makes_the_same_tables(empty_dsn: str, databases: Databases, schema: str) -> None:
    text = offline_sql(schema)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(text.encode())
    with databases.fresh("template0") as other:
        migrate(other, schema)
        assert catalogue(empty_dsn, schema) == catalogue(other, schema)
    assert works(empty_dsn, schema)
    assert migrate(empty_dsn, schema) == []


ENV = """
from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
OWN = """
from alembic import op

revision, down_revision = "aaa1", None

def upgrade():
    op.execute("create table orders (id int primary key)")

def downgrade():
    op.execute("drop table orders")
"""
OURS = """
from alembic import op
from dbjobq.schema import migration_sql

revision, down_revision = "bbb2", "aaa1"

def upgrade():
    for statement in migration_sql({schema!r}, to={head!r}):
        op.execute(statement)

def downgrade():
    for statement in migration_sql({schema!r}, to={head!r}, undo=True):
        op.execute(statement)
"""


@pytest.mark.parametrize("schema", ["dbjobq", "My Schema"])
def test_the_migrations_can_be_part_of_a_users_own_history(
    empty_dsn: str, databases: Databases, tmp_path: Path, schema: str
) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "versions" / "a.py").write_text(OWN)
    (tmp_path / "versions" / "b.py").write_text(OURS.format(schema=schema, head=HEAD))
    config = Config()
    config.set_main_option("script_location", str(tmp_path).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    parts = {name: str(value) for name, value in conninfo_to_dict(empty_dsn).items()}
    url = sqlalchemy.URL.create("postgresql+psycopg", database=parts.pop("dbname"), query=parts)
    config.set_main_option("sqlalchemy.url", url.render_as_string(hide_password=False).replace("%", "%%"))

    command.upgrade(config, "head")
    with PostgresStorage(empty_dsn, schema=schema) as storage:
        storage.check().run()
    assert works(empty_dsn, schema)
    with databases.fresh("template0") as other:
        migrate(other, schema)
        assert catalogue(empty_dsn, schema) == catalogue(other, schema)
    command.downgrade(config, "aaa1")
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [("aaa1",)]
        query = "select relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace where nspname = %s"
        assert connection.execute(query, (schema,)).fetchall() == []
    command.upgrade(config, "head")
    assert revision(empty_dsn, schema) == HEAD
    assert migrate(empty_dsn, schema) == []


def scripts() -> list[Script]:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    found: ScriptDirectory = ScriptDirectory.from_config(config)
    return [*found.walk_revisions()][::-1]


def test_the_statements_for_a_users_own_history_are_complete_and_refuse_what_is_unknown() -> None:
    up, down = migration_sql("s", to="0001"), migration_sql("s", to="0001", undo=True)
    assert up[0] == 'create schema if not exists "s"'
    assert up[-2:] == [
        "update \"s\".schema_version set version_num = '0001'",
        "update \"s\".schema_version set compatible_from = '0001'",
    ]
    assert all("{schema}" not in statement for statement in up + down)
    with pytest.raises(SchemaError, match="'0999'"):
        migration_sql(to="0999")


@pytest.mark.parametrize("schema", [pytest.param(None, marks=pytest.mark.slow), "My Schema"])
def test_plain_alembic_works_in_a_checkout(empty_dsn: str, databases: Databases, schema: str | None) -> None:
    """`alembic upgrade head`, without an alembic.ini."""
    env = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "DBJOBQ_SCHEMA"}}
    env |= {"DBJOBQ_DSN": empty_dsn} | ({"DBJOBQ_SCHEMA": schema} if schema else {})

    def alembic(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *words],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("upgrade", "head")
    assert works(empty_dsn, schema or "dbjobq")
    assert f"{HEAD} (head)" in alembic("current")
    assert migrate(empty_dsn, schema or "dbjobq") == []
    alembic("downgrade", "base")
    assert revision(empty_dsn, schema or "dbjobq") is None


def test_the_migrations_are_found_in_the_checkout_from_any_directory(tmp_path: Path) -> None:
    assert migrations_dir() == ROOT / "migrations"
    script = "from dbjobq.schema import migrations_dir, offline_sql; print(migrations_dir()); offline_sql()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / "migrations")


def test_the_version_of_the_library_is_the_newest_migration() -> None:
    files = sorted(path.name for path in (ROOT / "migrations" / "versions").glob("*.py"))
    assert files[-1].startswith(f"{HEAD}_")
    assert [step.revision for step in scripts()] == [name[:4] for name in files]
    for script in scripts():
        told = script.module.__doc__ or ""
        assert all(word in told for word in ("Why:", "Locks:", "previous release")), script.revision
