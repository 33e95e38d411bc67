"""`dbjobq migrate`: make the tables, bring them up to date, or take them away."""

from __future__ import annotations

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.settings import Database, database_options

__all__ = ["migrate"]


@click.command()
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL that makes the tables, and change nothing.")
@click.option("--check", "only_check", is_flag=True, help="Only look: exit code 1 unless the tables are as needed.")
@click.option("--to", metavar="REV", help="Go to this revision, such as 0001; `base` takes the tables away.")
@click.option("--yes", is_flag=True, help="Do not ask before a way back deletes something.")
@json_option
@database_options
def migrate(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    as_sql: bool,
    only_check: bool,
    to: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Make dbjobq's tables, or bring them up to date.

    Everything happens in one transaction, in a schema of its own. Safe to run from many places at once: one
    works, the others wait. Run it before the workers of a new release start.

    \b
      dbjobq migrate                        to the newest revision
      dbjobq migrate --check                in a deployment: are the tables as this release needs them?
      dbjobq migrate --sql > dbjobq.sql     for those who apply it by hand
      dbjobq migrate --to base              delete the tables, and all jobs
    """  # noqa: D301 - click's mark for a block that is not wrapped
    if as_sql + only_check + (to is not None) > 1:
        raise click.UsageError("--sql, --check and --to: give one of them")
    if as_sql:
        _print_sql(database)
    elif only_check:
        _check(database, as_json=as_json)
    else:
        if to is not None and not yes:
            _confirm(database, to)
        _migrate(database, to, as_json=as_json)


def _confirm(database: Database, to: str) -> None:
    from dbjobq import schema

    if schema.leads_back(database.dsn, database.schema, to=to):
        what = "the tables" if to == "base" else "what later migrations have made"
        jobs = "all jobs" if to == "base" else "the data in it"
        click.confirm(f"This deletes {what} in schema {database.schema!r}, and {jobs}. Go on?", abort=True, err=True)


def _print_sql(database: Database) -> None:
    from dbjobq import schema

    click.echo(schema.offline_sql(database.schema), nl=False)


def _check(database: Database, *, as_json: bool) -> None:
    from dbjobq import schema

    revision = schema.check(database.dsn, database.schema)
    if as_json:
        echo_json({"schema": database.schema, "revision": revision})
    else:
        click.echo(f"schema {database.schema!r} is at revision {revision}, as this release needs it")


def _migrate(database: Database, to: str | None, *, as_json: bool) -> None:
    from dbjobq import schema

    target = to or schema.HEAD
    steps = schema.migrate(database.dsn, database.schema, to=target)
    if as_json:
        applied = [{"revision": step.revision, "summary": step.summary} for step in steps]
        echo_json({"schema": database.schema, "revision": target, "steps": applied})
        return
    for step in steps:
        click.echo(f"{step.revision}  {step.summary}")
    done = f"{len(steps)} migration{'s' * (len(steps) != 1)} {'undone' if steps and steps[0].undone else 'applied'}"
    click.echo(f"schema {database.schema!r}: {done if steps else 'nothing to do'}, now at {target}")
