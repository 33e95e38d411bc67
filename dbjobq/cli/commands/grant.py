"""`dbjobq grant`: give a database role the rights it needs, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.settings import Database, database_options

if TYPE_CHECKING:
    from dbjobq.schema.roles import Kind

__all__ = ["grant"]


@click.command()
@click.option("--role", required=True, metavar="NAME", help="An existing role.")
@click.option(
    "--as",
    "kind",
    required=True,
    type=click.Choice(("producer", "worker", "reader", "admin")),
    help="What it is to be.",
)
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL, and change nothing.")
@json_option
@database_options
def grant(database: Database, *, role: str, kind: Kind, as_sql: bool, as_json: bool) -> None:
    """Give a database role the rights it needs, and no others.

    A producer enqueues, and sees neither data nor results. A worker runs jobs, and cannot change the tables. A
    reader sees all jobs. An admin owns the tables, and so can migrate; to make one takes a superuser, for the others
    the owner. Rights are only added. Run it again after a migration.

    \b
      dbjobq grant --role web --as producer
      dbjobq grant --role jobs_owner --as admin --sql
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
