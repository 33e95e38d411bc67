"""`dbjobq grant`: give a database role the rights it needs, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.settings import Database, database_options

if TYPE_CHECKING:
    from dbjobq.schema.roles import Kind

__all__ = ["grant"]


@click.command(short_help="Give a database role the rights that it needs.")
@click.option("--role", required=True, metavar="NAME", help="The role: it must exist.")
@click.option(
    "--as",
    "kind",
    required=True,
    type=click.Choice(("producer", "worker", "reader", "admin")),
    metavar="KIND",
    help="What it may do: producer, worker, reader or admin.",
)
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL. Change nothing.")
@json_option
@database_options
def grant(database: Database, *, role: str, kind: Kind, as_sql: bool, as_json: bool) -> None:
    """Give a database role the rights that it needs, and no others.

    \b
      producer  enqueues jobs; sees no arguments and no results
      worker    runs jobs; cannot change the tables
      reader    sees all jobs; changes nothing
      admin     owns the tables, so it may migrate, and grant

    To make an admin takes a superuser; for the others connect as the admin. Rights are only added, so a role may be of
    two kinds. Run it again after each migration.

    \b
      dbjobq grant --role jobs_owner --as admin
      dbjobq grant --role web --as producer
      dbjobq grant --role web --as producer --sql
    """  # noqa: D301 - click's mark for a block that is not wrapped
    from dbjobq.schema import roles

    if as_sql:
        statements = roles.grant_sql(role, kind, database.schema)
    else:
        statements = roles.grant(role, kind, database.dsn, database.schema)
    if as_json:
        echo_json({"role": role, "as": kind, "schema": database.schema, "statements": statements})
    elif as_sql:
        click.echo("".join(f"{statement};\n" for statement in statements), nl=False)
    else:
        click.echo(f"role {role!r} is {'an' if kind == 'admin' else 'a'} {kind} in schema {database.schema!r}")
