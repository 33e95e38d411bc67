"""`dbjobq migrate`: make the tables, bring them up to date, or take them away."""

from __future__ import annotations

import click

from dbjobq.cli.logs import log_to_stderr
from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.settings import Database, database_options

__all__ = ["migrate"]


@click.command(short_help="Make the tables, or bring them up to date.")
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL that makes the tables. Change nothing.")
@click.option(
    "--check", "only_check", is_flag=True, help="Change nothing; exit with 1 unless this release runs on the tables."
)
@click.option(
    "--to", metavar="REV", help="Go to this revision, such as 0003; `base` deletes the tables.  [default: the newest]"
)
@click.option("--yes", is_flag=True, help="Do not ask before deleting something (--to an earlier revision).")
@click.option(
    "--lock-timeout",
    type=Seconds(0, min_open=True),
    default=0.5,
    show_default=True,
    help="How long to wait for locks before others, who wait behind this, are let pass. Then it tries again.",
)
@click.option(
    "--timeout",
    type=Seconds(0, min_open=True),
    default=300.0,
    show_default=True,
    help="How long to try before giving up, and saying who has the locks.",
)
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
    lock_timeout: float,
    timeout: float,
) -> None:
    """Make dbjobq's tables, or bring them up to date.

    The tables are in a database schema of their own. Run this once at the beginning, and in each deployment before the
    workers of a new release start.

    It is safe while workers and programs that enqueue are at work; what it waits for is said on standard error. It is
    safe to start it in many places at once: one works, the others wait.

    \b
      dbjobq migrate                       make the tables, or update them
      dbjobq migrate --check               only look, by the exit code
      dbjobq migrate --sql > dbjobq.sql    print SQL, to apply it by hand
      dbjobq migrate --to base             delete the tables, and all jobs

    \b
    Exit codes:
      0  the tables are as this release needs them
      1  they are not, or cannot be made so; one line says why
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
        log_to_stderr("warning", as_json=False)
        _migrate(database, to, as_json=as_json, lock_timeout=lock_timeout, timeout=timeout)


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
        newer = f"newer than this release's {schema.HEAD}, which runs on it"
        fits = "as this release needs it" if revision == schema.HEAD else newer
        click.echo(f"schema {database.schema!r} is at revision {revision}, {fits}")


def _migrate(database: Database, to: str | None, *, as_json: bool, lock_timeout: float, timeout: float) -> None:
    from dbjobq import schema

    target = to or schema.HEAD
    steps = schema.migrate(database.dsn, database.schema, to=target, lock_timeout=lock_timeout, timeout=timeout)
    if not steps:
        target = schema.revision(database.dsn, database.schema)
    if as_json:
        applied = [{"revision": step.revision, "summary": step.summary} for step in steps]
        echo_json({"schema": database.schema, "revision": target, "steps": applied})
        return
    for step in steps:
        click.echo(f"{step.revision}  {step.summary}")
    done = f"{len(steps)} migration{'s' * (len(steps) != 1)} {'undone' if steps and steps[0].undone else 'applied'}"
    click.echo(f"schema {database.schema!r}: {done if steps else 'nothing to do'}, now at {target}")
