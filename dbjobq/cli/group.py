"""`dbjobq`: the group of commands, and how an error ends a command.

An operating error (`DBJobQError`) is one line on standard error and exit code 1. A value that the library refuses
(`TypeError`, `ValueError`) is a wrong call, with click's exit code 2.
"""

from __future__ import annotations

from typing import Any

import click

import dbjobq
from dbjobq.cli.commands.bench import bench
from dbjobq.cli.commands.demo import demo
from dbjobq.cli.commands.doctor import doctor
from dbjobq.cli.commands.enqueue import enqueue
from dbjobq.cli.commands.grant import grant
from dbjobq.cli.commands.jobs import jobs
from dbjobq.cli.commands.migrate import migrate
from dbjobq.cli.commands.stats import stats
from dbjobq.cli.commands.worker import worker
from dbjobq.cli.output import one_line
from dbjobq.errors import DBJobQError

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands fail with one line; its help lists them in the order in which one needs them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DBJobQError as error:
            raise click.ClickException(one_line(error)) from error
        except (TypeError, ValueError) as error:
            raise click.UsageError(one_line(error)) from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(
    cls=_Commands,
    commands=[migrate, worker, enqueue, jobs, stats, doctor, grant, demo, bench],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(dbjobq.__version__, prog_name="dbjobq", message="%(prog)s %(version)s")
def main() -> None:
    """Background jobs in the PostgreSQL that your service already has.

    A job is a call of a Python function that is to be made later. Your program enqueues it, which writes a row into a
    table. Workers, which are processes of their own, run it.

    \b
      export DBJOBQ_DSN=postgresql://localhost/app
      dbjobq migrate                  make the tables; again after an upgrade
      dbjobq worker myapp.jobs        run the jobs of myapp/jobs.py, until Ctrl-C
      dbjobq enqueue myapp.jobs.send to=ann@example.com
      dbjobq stats                    see how many jobs wait, run, have failed
      dbjobq doctor                   see what is wrong, and what to do about it

    `dbjobq demo` shows all of that in half a minute, and brings a server of its own.

    Environment variables, which count where no option says otherwise:

    \b
      DBJOBQ_DSN         the database; if it is empty DATABASE_URL, and without
                         both PGHOST, PGDATABASE and libpq's other variables
      DBJOBQ_SCHEMA      the database schema of the tables (default: dbjobq)
      DBJOBQ_LISTEN_DSN  a direct DSN of the server, if the database is reached
                         through PgBouncer

    \b
    Exit codes, unless a command says otherwise:
      0  it is done
      1  it could not be done; one line on standard error says why
      2  the command line is wrong, or a value in it
    """  # noqa: D301 - click's mark for a block that is not wrapped
