"""The rights of database roles, as one table: producers enqueue, workers work, readers look, an admin migrates.

Rights are added, never taken away, and can be given again at any time: do so after a migration. A role may be of
several kinds. The view `jobs` has its owner's rights, as views do: a role that may read the view sees all jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from psycopg import errors, sql

from dbjobq.errors import ConfigError
from dbjobq.storage.postgres.connect.address import named_schema
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.way import Way
from dbjobq.storage.postgres.schema_version import VERSION_TABLE
from dbjobq.storage.postgres.statements import check_schema_name

__all__ = ["KINDS", "Kind", "grant", "grant_sql"]

Kind = Literal["producer", "worker", "reader", "admin"]

KINDS: Final[tuple[Kind, ...]] = ("producer", "worker", "reader", "admin")

_TABLES: Final = (
    "queue",
    "worker",
    "job",
    "ready",
    "scheduled",
    "lease",
    "done",
    "failure",
    "unique_key",
    VERSION_TABLE,
)

_STATEMENTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    # A producer reads what an enqueue must: queues' numbers, ids, and who has a unique key. No arguments, no results.
    "producer": (
        "grant usage on schema {schema} to {role}",
        f"grant select on {{schema}}.{VERSION_TABLE} to {{role}}",
        "grant select, insert (name) on {schema}.queue to {role}",
        "grant select (id, position), insert on {schema}.job to {role}",
        "grant insert (position, queue, priority, job_id) on {schema}.ready to {role}",
        "grant insert (run_at, enqueued, queue, priority, job_id) on {schema}.scheduled to {role}",
        "grant select, insert on {schema}.unique_key to {role}",
    ),
    # A worker moves the small rows; bodies and failures are written once, and by all kinds of roles.
    "worker": (
        "grant usage on schema {schema} to {role}",
        f"grant select on {{schema}}.{VERSION_TABLE}, {{schema}}.jobs to {{role}}",
        "grant select, insert on {schema}.job, {schema}.failure to {role}",
        "grant select, insert, update on {schema}.queue, {schema}.worker to {role}",
        "grant select, insert, update, delete on {schema}.ready, {schema}.scheduled, {schema}.lease to {role}",
        "grant select, insert, delete on {schema}.done, {schema}.unique_key to {role}",
        "grant usage on sequence {schema}.claim to {role}",
        "grant execute on function {schema}.stands_elsewhere(uuid, tid, int, int, bigint) to {role}",
    ),
    "reader": (
        "grant usage on schema {schema} to {role}",
        "grant select on all tables in schema {schema} to {role}",
    ),
    # Only an owner may alter a table. The statements work in an empty schema, too.
    "admin": (
        "create schema if not exists {schema} authorization {role}",
        "alter schema {schema} owner to {role}",
        *(f"alter table if exists {{schema}}.{table} owner to {{role}}" for table in _TABLES),
        "alter view if exists {schema}.jobs owner to {role}",
        "alter sequence if exists {schema}.claim owner to {role}",
        (
            "do $dbjobq$ begin alter function {schema}.key_has_its_job() owner to {role}; "
            "alter function {schema}.stands_elsewhere(uuid, tid, int, int, bigint) owner to {role}; "
            "exception when undefined_function then null; end $dbjobq$"
        ),
    ),
}


def grant_sql(role: str, kind: Kind, schema: str = "dbjobq") -> list[str]:
    """Return the statements that make a role a producer, worker, reader or admin.

    Raises:
        ConfigError: The schema's name cannot be used.
    """
    names = {"schema": sql.Identifier(check_schema_name(schema)), "role": sql.Identifier(role)}
    quoted = {name: identifier.as_string() for name, identifier in names.items()}
    return [statement.format_map(quoted) for statement in _STATEMENTS[kind]]


def grant(role: str, kind: Kind, conninfo: str | None = None, schema: str | None = None) -> list[str]:
    """Make a role a producer, worker, reader or admin, in one transaction; return the statements.

    Args:
        role: An existing role.
        kind: The kind of rights that it gets.
        conninfo: A DSN of the tables' owner, of a superuser for an admin; None as in `PostgresStorage`.
        schema: The tables' schema; None as in `PostgresStorage`.

    Raises:
        ConfigError: There is no such role, the DSN does not work, or its role may not do this.
        SchemaError: There are no tables yet.
        StorageUnavailable: PostgreSQL does not answer.
    """
    schema = named_schema(schema)
    statements = grant_sql(role, kind, schema)
    try:
        with translated(schema), Way(conninfo).connect(autocommit=False, prepare_threshold=None) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    except errors.UndefinedObject as error:
        raise ConfigError(f"there is no role {role!r}: make it first, create role … login") from error
    return statements
