"""The tables' migrations: found, applied, undone, printed and checked. Alembic is imported here, and only when needed.

The migrations are in `migrations/` at the top of a checkout; a wheel carries them as `dbjobq/migrations`. They live in
a schema of their own with a version table of their own, so that they never meet a user's Alembic history.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from dbjobq.errors import ConfigError, SchemaError
from dbjobq.schema.turn import Patience, Turn, migrating
from dbjobq.storage.postgres.connect.address import named_schema
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.way import Way
from dbjobq.storage.postgres.schema_version import HEAD, VERSION_TABLE, check_version
from dbjobq.storage.postgres.statements import Statements, check_schema_name

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from alembic.script import Script, ScriptDirectory

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "Applied",
    "apply",
    "check",
    "leads_back",
    "migrate",
    "migration_sql",
    "migrations_dir",
    "offline_sql",
    "preamble",
    "record_compatibility",
    "revision",
    "turn_to_migrate",
]

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_USUAL: Final = Patience()
_CONCURRENTLY: Final = re.compile(
    r"\s*(create (unique )?index concurrently (if not exists )?(?P<made>\w+)|(drop|reindex) index concurrently)\s"
)


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
    for folder in (_PACKAGE / "migrations", _PACKAGE.parent / "migrations"):
        if (folder / "env.py").exists():
            return folder
    raise ConfigError(f"no migrations beside {_PACKAGE}: the installation is incomplete, install dbjobq again")


def quoted(schema: str) -> str:
    """Return a schema's name as SQL text has it."""
    return '"' + check_schema_name(schema).replace('"', '""') + '"'


def preamble(schema: str) -> list[str]:
    """Return the statements that must run before the first migration: they make the schema itself."""
    return [f"create schema if not exists {quoted(schema)}"]


def apply(statements: Iterable[str]) -> None:
    """Run a migration's statements in the schema that Alembic was configured for; migrations call it.

    All statements run in the migration's transaction, and together wait for locks no longer than one of them may.
    Except those with `concurrently`: they run outside of it, and go on where a killed process has left off.
    """
    from alembic import context, op

    name, turn = quoted(context.config.attributes["schema"]), context.config.attributes.get("turn")
    patience: Patience = turn.patience if turn is not None else _USUAL
    by = time.monotonic() + patience.lock_timeout
    for number, statement in enumerate(statements):
        text = statement.replace("{schema}", name)
        if (concurrent := _CONCURRENTLY.match(statement)) is not None:
            with op.get_context().autocommit_block():
                new = concurrent["made"]
                if new is None or context.is_offline_mode() or not _has_index(f"{name}.{new}"):
                    op.execute(text)
            continue
        if turn is not None or number == 0:  # printed SQL sets it once
            left = patience.lock_timeout if turn is None else by - time.monotonic()
            op.execute(f"set local lock_timeout = {max(1, round(left * 1000))}")  # milliseconds; 0 would be for ever
        op.execute(text)


def _has_index(index: str) -> bool:
    """Tell whether an index is there already. An invalid one, which was left half made, is dropped."""
    from alembic import op

    query = "select indisvalid from pg_index where indexrelid = to_regclass(%s)"
    valid: bool | None = op.get_bind().exec_driver_sql(query, (index,)).scalar()
    if valid is False:
        op.execute(f"drop index concurrently {index}")
    return bool(valid)


def record_compatibility(ctx: MigrationContext, step: MigrationInfo, *_: object, **__: object) -> None:
    """Write which releases run on the tables after a step; Alembic calls it, in the step's transaction."""
    from alembic import context

    for script in step.destination_revisions:
        ctx.execute(_compatibility(cast("Script", script), context.config.attributes["schema"]))


def _compatibility(script: Script, schema: str) -> str:
    compatible_from: str = script.module.compatible_from
    return f"update {quoted(schema)}.{VERSION_TABLE} set compatible_from = '{compatible_from}'"


def migrate(
    conninfo: str | None = None,
    schema: str | None = None,
    *,
    to: str = HEAD,
    lock_timeout: float = _USUAL.lock_timeout,
    timeout: float = _USUAL.timeout,
) -> list[Applied]:
    """Bring the tables to a revision, each migration in a transaction of its own.

    Safe when many start it at once: one works, the others wait. Safe under load: a statement that waits for a lock on a
    table makes all later ones wait for that table, so it gives up after `lock_timeout`, and tries again later.

    Args:
        conninfo: A DSN; None as in `PostgresStorage`.
        schema: The tables' schema; None as in `PostgresStorage`.
        to: A revision, such as `"0001"`, or `"base"` for no tables at all; the newest by default.
        lock_timeout: Seconds that one migration may wait for its locks, with others waiting behind it.
        timeout: Seconds that all waiting may take, for locks and for another process that migrates.

    Returns:
        The migrations that were applied, or undone, in order. Empty if there was nothing to do, or if the tables are
        newer than this library, which runs on them.

    Raises:
        SchemaError: The tables are too new for this library, or there is no such revision.
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer, or others kept their locks for all that time.
    """
    from alembic import command

    schema = check_schema_name(named_schema(schema))
    with turn_to_migrate(conninfo, schema, Patience(lock_timeout, timeout)) as turn:
        found = _found(conninfo, schema)
        steps, undo = _steps(found, to, schema)
        if steps:
            config = _config(schema)
            config.attributes["turn"] = turn
            (command.downgrade if undo else command.upgrade)(config, to)
        return [Applied(step.revision, step.doc.rstrip("."), undo) for step in steps]


@contextmanager
def turn_to_migrate(
    conninfo: str | None = None, schema: str = "dbjobq", patience: Patience = _USUAL
) -> Generator[Turn]:
    """See `turn.migrating`; makes the schema, too, if it is missing."""
    with migrating(conninfo, schema, patience) as turn:
        query = "select to_regnamespace(%s) is null"
        if turn.connection.exec_driver_sql(query, (quoted(schema),)).scalar():
            for statement in preamble(schema):
                turn.connection.exec_driver_sql(statement)
        turn.connection.commit()
        yield turn


def leads_back(conninfo: str | None, schema: str, *, to: str) -> bool:
    """Tell whether `migrate` to this revision would undo migrations, and so delete what they made."""
    steps, undo = _steps(_found(conninfo, schema), to, schema)
    return undo and bool(steps)


def _found(conninfo: str | None, schema: str) -> list[tuple[str, str | None]]:
    """Return the rows of `version.sql`; none where there are no tables."""
    statements = Statements(schema)
    with translated(schema), Way(conninfo).connect(autocommit=False, prepare_threshold=None) as connection:
        table = f"{quoted(schema)}.{VERSION_TABLE}"
        if connection.execute("select to_regclass(%s)", (table,)).fetchone() == (None,):
            return []
        return connection.execute(statements["version"]).fetchall()


def _steps(found: Sequence[tuple[str, str | None]], to: str, schema: str) -> tuple[list[Script], bool]:
    """Return the migrations between what was found and a revision, in order, and whether they are to be undone."""
    scripts = _scripts()
    known = [script.revision for script in scripts]
    before = found[0][0] if found else None
    newer = before is not None and before not in known
    if newer:
        check_version(found, schema)
    if to not in {*known, "base"}:
        raise SchemaError(f"there is no migration {to!r}: this library has {', '.join(known)} and base")
    if newer:
        if to == HEAD:
            return [], False
        raise SchemaError(
            f"schema {schema!r} is at migration {before}, newer than this library's {HEAD}: "
            f"undo it with the release of dbjobq that has it"
        )
    now, then = (0 if at is None or at == "base" else known.index(at) + 1 for at in (before, to))
    return (scripts[now:then], False) if then >= now else (scripts[then:now][::-1], True)


def offline_sql(schema: str = "dbjobq") -> str:
    """Return the SQL that makes the tables from nothing, for those who apply it by hand."""
    from alembic import command

    config = _config(schema)
    config.output_buffer = io.StringIO()
    command.upgrade(config, HEAD, sql=True)
    return config.output_buffer.getvalue()


def migration_sql(schema: str = "dbjobq", *, since: str | None = None, to: str = HEAD, undo: bool = False) -> list[str]:
    """Return migrations as statements for a migration of your own (docs: your own Alembic history).

    The statements keep dbjobq's version table, too, so that workers find the version they expect.

    Args:
        schema: The tables' schema.
        since: The revision that your history has reached; None to begin without tables.
        to: The revision to reach. Write it out: a migration must not change when the library does.
        undo: Return the way back instead, from `to` to `since`.

    Raises:
        SchemaError: There is no such revision.
    """
    name, table = quoted(schema), f"{quoted(schema)}.{VERSION_TABLE}"
    start, end = (to, since or "base") if undo else (since, to)
    scripts, _ = _steps([] if start is None else [(start, None)], end, schema)
    statements: list[str] = []
    if start is None:
        key = f"constraint {VERSION_TABLE}_pkc primary key"
        statements += [*preamble(schema), f"create table {table} (version_num varchar(32) not null {key})"]
        statements.append(f"insert into {table} values ('{end}')")
    for script in scripts:
        statements += _texts(script, "DOWNGRADE" if undo else "UPGRADE")
    if end == "base":
        statements.append(f"drop table {table}")
    else:
        statements.append(f"update {table} set version_num = '{end}'")
        statements += [_compatibility(script, schema) for script in _scripts() if script.revision == end]
    return [statement.replace("{schema}", name) for statement in statements]


def _texts(script: Script, which: str) -> tuple[str, ...]:
    texts: tuple[str, ...] = getattr(script.module, which)
    return texts


def check(conninfo: str | None = None, schema: str | None = None) -> str:
    """Return the tables' revision if this library runs on them.

    Raises:
        SchemaError: The tables are missing, older or too new. The message says what to do.
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer.
    """
    schema = named_schema(schema)
    return check_version(_found(conninfo, schema), schema)


def revision(conninfo: str | None = None, schema: str | None = None) -> str:
    """Return the tables' revision, whatever it is; `"base"` without tables. Raises as `check`, except SchemaError."""
    found = _found(conninfo, named_schema(schema))
    return found[0][0] if found else "base"


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
