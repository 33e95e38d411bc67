"""`dbjobq`: the group of commands, and what becomes of an error.

An operating error (`DBJobQError`) is one line on standard error and exit code 1. A value that the library refuses
(`TypeError`, `ValueError`) is a wrong call, and its exit code click's 2.
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
    """A group whose commands fail with one line; listed in the order in which one meets them."""

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
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(dbjobq.__version__, prog_name="dbjobq", message="%(prog)s %(version)s")
def main() -> None:
    """Background jobs in the PostgreSQL that your service already has.

    \b
      export DBJOBQ_DSN=postgresql://localhost/app
      dbjobq migrate                                   make the tables
      dbjobq worker myapp.jobs                         run jobs
      dbjobq enqueue myapp.jobs.send to=ann@example.com
      dbjobq stats                                     see how it goes
      dbjobq doctor                                    see what is wrong
      dbjobq demo                                      see it all at once, without a server
      dbjobq bench                                     see how fast it is

    The database is --dsn, else DBJOBQ_DSN, else DATABASE_URL, else what libpq's PG* variables say.
    """  # noqa: D301 - click's mark for a block that is not wrapped
