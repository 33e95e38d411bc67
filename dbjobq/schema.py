"""The tables' migrations: found, applied, undone, printed and checked. Alembic is imported here, and only when needed.

The migrations are in `migrations/` at the top of a checkout; a wheel carries them as `dbjobq/migrations`. They live in
a schema of their own with a version table of their own, so that they never meet a user's Alembic history.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from dbjobq.errors import ConfigError, SchemaError
from dbjobq.storage.connections import resolve_conninfo
from dbjobq.storage.faults import translated
from dbjobq.storage.statements import check_schema_name
from dbjobq.storage.version import HEAD, VERSION_TABLE, check_version

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "Applied",
    "alembic_connection",
    "apply",
    "check",
    "leads_back",
    "migrate",
    "migration_sql",
    "migrations_dir",
    "offline_sql",
    "preamble",
]

_HERE: Final = Path(__file__).resolve().parent


class Applied(NamedTuple):
    """One migration that was applied or undone."""

    revision: str
    summary: str
    undone: bool = False


def migrations_dir() -> Path:
    """Return where the migrations are: beside the package's modules, else at the top of the checkout.

    Raises:
        ConfigError: Neither has an `env.py`; the installation is broken.
    """
    for folder in (_HERE / "migrations", _HERE.parent / "migrations"):
        if (folder / "env.py").exists():
            return folder
    raise ConfigError(f"no migrations beside {_HERE}: the installation is incomplete, install dbjobq again")


def quoted(schema: str) -> str:
    """Return a schema's name as SQL text has it."""
    return '"' + check_schema_name(schema).replace('"', '""') + '"'


def preamble(schema: str) -> list[str]:
    """Return what must be there before the first migration: the schema itself."""
    return [f"create schema if not exists {quoted(schema)}"]


def apply(statements: Iterable[str]) -> None:
    """Run a migration's statements in the schema Alembic was configured for; migrations call it."""
    from alembic import context, op

    schema = context.config.attributes["schema"]
    for statement in statements:
        op.execute(statement.replace("{schema}", quoted(schema)))


def migrate(conninfo: str | None = None, schema: str = "dbjobq", *, to: str = HEAD) -> list[Applied]:
    """Bring the tables to a revision, in one transaction; safe when many start it at once: one works, the others wait.

    Args:
        conninfo: A DSN; None as in `PostgresStorage`.
        schema: Where the tables are, or will be.
        to: A revision, such as `"0001"`, or `"base"` for no tables at all; the newest by default.

    Returns:
        What was applied, or undone, in order; empty if there was nothing to do.

    Raises:
        SchemaError: The tables are newer than this library, or there is no such revision.
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer.
    """
    from alembic import command

    check_schema_name(schema)
    with alembic_connection(conninfo, schema) as connection:
        before = _version(connection, schema)
        steps = _steps(before, to, schema)
        if not steps:
            return []
        undo = _leads_back(before, to)
        config = _config(schema)
        config.attributes["connection"] = connection
        (command.downgrade if undo else command.upgrade)(config, to)
        return [Applied(step.revision, step.doc.rstrip("."), undo) for step in steps]


def leads_back(conninfo: str | None, schema: str, *, to: str) -> bool:
    """Tell whether `migrate` to this revision would undo migrations, and so delete what they made."""
    with alembic_connection(conninfo, schema, create=False) as connection:
        before = _version(connection, schema)
    return bool(_steps(before, to, schema)) and _leads_back(before, to)


def _leads_back(before: str | None, to: str) -> bool:
    return before is not None and (to == "base" or to < before)


def _version(connection: Connection, schema: str) -> str | None:
    table = f"{quoted(schema)}.{VERSION_TABLE}"
    if connection.exec_driver_sql("select to_regclass(%s)", (table,)).scalar() is None:
        return None
    found: str | None = connection.exec_driver_sql(f"select version_num from {table}").scalar()
    return found


def _steps(before: str | None, to: str, schema: str) -> list[Script]:
    """Return the migrations between two revisions, in the order in which they are to be applied or undone."""
    scripts = _scripts()
    known = [script.revision for script in scripts]
    if before is not None and before not in known:
        check_version(before, schema)
    if to not in {*known, "base"}:
        raise SchemaError(f"there is no migration {to!r}: this library has {', '.join(known)} and base")
    now, then = (0 if at is None or at == "base" else known.index(at) + 1 for at in (before, to))
    return scripts[now:then] if then >= now else scripts[then:now][::-1]


def offline_sql(schema: str = "dbjobq") -> str:
    """Return the SQL that makes the tables from nothing, for those who apply it by hand."""
    from alembic import command

    config = _config(schema)
    config.output_buffer = io.StringIO()
    command.upgrade(config, HEAD, sql=True)
    return config.output_buffer.getvalue()


def migration_sql(schema: str = "dbjobq", *, since: str | None = None, to: str = HEAD, undo: bool = False) -> list[str]:
    """Return migrations as statements for a migration of your own (docs: your own Alembic history).

    They keep dbjobq's version table, so that workers find the version they expect.

    Args:
        schema: Where the tables are.
        since: The revision your history has reached; None from nothing.
        to: The revision to reach. Write it out: a migration must not change when the library does.
        undo: Return the way back instead, from `to` to `since`.

    Raises:
        SchemaError: There is no such revision.
    """
    name, table = quoted(schema), f"{quoted(schema)}.{VERSION_TABLE}"
    statements: list[str] = []
    if undo:
        for script in _steps(to, since or "base", schema):
            statements += _texts(script, "DOWNGRADE")
        gone = f"drop table {table}" if since is None else f"update {table} set version_num = '{since}'"
        statements.append(gone)
    else:
        if since is None:
            statements += preamble(schema)
            key = f"constraint {VERSION_TABLE}_pkc primary key"
            statements.append(f"create table {table} (version_num varchar(32) not null {key})")
        for script in _steps(since, to, schema):
            statements += _texts(script, "UPGRADE")
        new = f"insert into {table} values ('{to}')"
        statements.append(new if since is None else f"update {table} set version_num = '{to}'")
    return [statement.replace("{schema}", name) for statement in statements]


def _texts(script: Script, which: str) -> tuple[str, ...]:
    texts: tuple[str, ...] = getattr(script.module, which)
    return texts


def check(conninfo: str | None = None, schema: str = "dbjobq") -> str:
    """Return the tables' revision if it is the one this library needs.

    Raises:
        SchemaError: It is missing, older or newer; the message says what to do.
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer.
    """
    with alembic_connection(conninfo, schema, create=False) as connection:
        found = _version(connection, schema)
    check_version(found, schema)
    return HEAD


@contextmanager
def alembic_connection(
    conninfo: str | None = None, schema: str = "dbjobq", *, create: bool = True
) -> Generator[Connection]:
    """Lend a connection in a transaction that nobody else migrates this schema in.

    Args:
        conninfo: A DSN; None as in `PostgresStorage`.
        schema: The schema, made if it is missing.
        create: Whether to lock and to make it; otherwise the connection is for looking only.

    Raises:
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer.
    """
    from sqlalchemy import create_engine, pool

    dsn = resolve_conninfo(conninfo)

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(dsn, prepare_threshold=None)

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with translated(schema), engine.begin() as connection:
        if create:
            # Ends with the transaction: safe behind a pooler, and nothing is left locked when this process dies.
            key = f"dbjobq.migrate.{schema}"
            connection.exec_driver_sql("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
            exists = connection.exec_driver_sql("select to_regnamespace(%s)", (quoted(schema),)).scalar()
            if exists is None:
                for statement in preamble(schema):
                    connection.exec_driver_sql(statement)
        yield connection


def _config(schema: str) -> Config:
    from alembic.config import Config

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["schema"] = check_schema_name(schema)
    return config


def _scripts() -> list[Script]:
    """Return all migrations, the oldest first."""
    from alembic.script import ScriptDirectory

    directory: ScriptDirectory = ScriptDirectory.from_config(_config("dbjobq"))
    return [*directory.walk_revisions()][::-1]
