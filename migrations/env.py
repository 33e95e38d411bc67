"""Alembic's environment: our tables in a schema of our own, with a version table of our own.

`dbjobq.schema` hands over its turn to migrate and the schema's name in `config.attributes`. Plain `alembic upgrade
head` in a checkout finds neither: it connects as `PostgresStorage()` does (`DBJOBQ_DSN`, else `PG*`) and takes the
schema from `DBJOBQ_SCHEMA`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from alembic import context

from dbjobq import schema as dbjobq_schema

if TYPE_CHECKING:
    from sqlalchemy import Connection

config = context.config
schema: str = config.attributes.setdefault("schema", os.environ.get("DBJOBQ_SCHEMA") or "dbjobq")


def configure(connection: Connection | None) -> None:
    """Configure Alembic and run the migrations asked for, each in a transaction: none keeps its locks for the next."""
    context.configure(
        connection=connection,
        dialect_name=None if connection is not None else "postgresql",
        version_table=dbjobq_schema.VERSION_TABLE,
        version_table_schema=schema,
        transactional_ddl=True,
        transaction_per_migration=True,
        on_version_apply=dbjobq_schema.record_compatibility,
        literal_binds=connection is None,
    )
    with context.begin_transaction():
        if connection is None:
            for statement in dbjobq_schema.preamble(schema):
                context.execute(statement)
        context.run_migrations()


if context.is_offline_mode():
    configure(None)
elif (given := config.attributes.get("turn")) is not None:
    given.run(configure)
else:
    with dbjobq_schema.turn_to_migrate(schema=schema) as own:
        config.attributes["turn"] = own
        own.run(configure)
