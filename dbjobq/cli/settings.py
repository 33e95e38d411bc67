"""The options that name a command's database; without them the environment's and libpq's own variables count."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from dbjobq.storage.postgres.connect.address import (
    DEFAULT_SCHEMA,
    DSN_VARIABLES,
    LISTEN_DSN_VARIABLE,
    SCHEMA_VARIABLE,
    libpq_form,
)

if TYPE_CHECKING:
    from dbjobq.queue.queues import JobQueue
    from dbjobq.storage.postgres_storage import PostgresStorage

__all__ = ["Database", "database_options", "dsn_option", "libpq_form", "listen_dsn_option"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Database:
    """The database, and the schema of the tables in it."""

    dsn: str
    """The DSN, as libpq takes it; empty for libpq's `PG*` variables."""
    schema: str
    listen_dsn: str | None
    """A direct DSN of the server, where `dsn` leads through a pooler."""

    def storage(self) -> PostgresStorage:
        """Return a storage, not connected yet, to be closed by the caller."""
        from dbjobq.storage.postgres_storage import PostgresStorage

        return PostgresStorage(self.dsn, schema=self.schema, listen_conninfo=self.listen_dsn)

    @contextmanager
    def queue(self) -> Generator[JobQueue]:
        """Lend a queue on tables that this library runs on. Raises SchemaError for others."""
        from dbjobq.queue.queues import JobQueue

        with self.storage() as storage:
            storage.check().run()
            yield JobQueue(storage)

    def environment(self) -> dict[str, str]:
        """Return variables that name the same database to a child process: a command line would show the password."""
        return {
            DSN_VARIABLES[0]: self.dsn,
            SCHEMA_VARIABLE: self.schema,
            LISTEN_DSN_VARIABLE: self.listen_dsn or "",
        }


dsn_option: Final = click.option(
    "--dsn",
    envvar=DSN_VARIABLES,
    metavar="DSN",
    help="The database, as a URL or in libpq's key=value form. [env: DBJOBQ_DSN, DATABASE_URL, libpq's PG*]",
)
_schema_option: Final = click.option(
    "--schema",
    envvar=SCHEMA_VARIABLE,
    default=DEFAULT_SCHEMA,
    show_default=True,
    metavar="NAME",
    help="The database schema that dbjobq's tables are in. [env: DBJOBQ_SCHEMA]",
)
listen_dsn_option: Final = click.option(
    "--listen-dsn",
    envvar=LISTEN_DSN_VARIABLE,
    metavar="DSN",
    help="A direct DSN of the server, if --dsn leads through PgBouncer. [env: DBJOBQ_LISTEN_DSN]",
)


def database_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that name its database; the command gets them as a `Database`, first."""

    @wraps(command)
    def with_database(dsn: str | None, schema: str, listen_dsn: str | None, **others: Any) -> R:
        database = Database(libpq_form(dsn or ""), schema, libpq_form(listen_dsn) if listen_dsn else None)
        return command(database, **others)

    return dsn_option(_schema_option(listen_dsn_option(with_database)))
