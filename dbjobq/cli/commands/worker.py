"""`dbjobq worker`: run jobs, in this process or in several."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from dbjobq.cli.logs import LEVELS, log_to_stderr
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.serving.lifeline import Lifeline
from dbjobq.cli.settings import Database, database_options

__all__ = ["worker"]

RELOAD_TIMEOUT: Final = 2.0
"""Seconds that jobs get to finish when the code has changed."""

_above_zero = Seconds(0, min_open=True)

_CONCURRENCY: Final = "How many jobs run at once, in each process. Raise it for jobs that wait, as for HTTP."
_PROCESSES: Final = "How many worker processes to run. Raise it for jobs that compute: one process uses one core."
_POLL: Final = "How long to wait before looking for jobs again when there were none. Each wait is twice the last."
_MAX_POLL: Final = "The longest of these waits. A notification from PostgreSQL ends a wait at once."
_LEVELS: Final = "debug (a line for each job), info, warning, error or critical."


def _names(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that may have been given one by one, or several with commas between."""
    given = [[name for name in map(str.strip, value.split(",")) if name] for value in values]
    if not all(given):  # such as of a variable that is not set: that must not mean all queues
        raise click.BadParameter("it names no queue; leave it out for all")
    return tuple(name for names in given for name in names)


@click.command(short_help="Run jobs, until it is told to stop.")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    callback=_names,
    metavar="NAME",
    help="Serve this queue; several with commas between, the first one first.  [default: all]",
)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, metavar="JOBS", help=_CONCURRENCY)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, metavar="N", help=_PROCESSES)
@click.option("--poll-interval", type=_above_zero, default=1.0, show_default=True, help=_POLL)
@click.option("--max-poll-interval", type=_above_zero, default=10.0, show_default=True, help=_MAX_POLL)
@click.option(
    "--lease",
    type=Seconds(1),
    default=30.0,
    show_default=True,
    help="If this worker dies, others run its jobs within this time.",
)
@click.option(
    "--shutdown-timeout",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    help="How long running jobs may take to finish when the worker stops. Others run the rest.",
)
@click.option(
    "--stuck-after",
    type=Seconds(0),
    default=3600.0,
    show_default=True,
    help="When a job without a timeout has run for so long, another may run beside it. 0 for never.",
)
@click.option(
    "--unknown-within",
    type=Seconds(0),
    default=3600.0,
    show_default=True,
    help="How long jobs whose function no worker has are put off before they fail.",
)
@click.option(
    "--reload", "reload_", is_flag=True, help="Start again when Python files below this folder change. For development."
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    metavar="LEVEL",
    help=_LEVELS,
)
@click.option("--log-json", is_flag=True, help="Log one JSON object a line.")
@click.option("--lifeline", type=int, hidden=True, help="The inherited socket to the parent process.")
@database_options
def worker(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    processes: int,
    reload_: bool,
    log_level: str,
    log_json: bool,
    lifeline: int | None,
    **settings: Any,
) -> None:
    """Run the jobs whose functions the MODULEs define, until it is told to stop.

    A MODULE is a name such as myapp.jobs, for a file myapp/jobs.py. It is imported from the current folder, or from
    wherever Python finds modules. Jobs that go well are logged with --log-level debug only.

    SIGTERM, or SIGINT (Ctrl-C), stops the worker: it takes no more jobs, lets those that run finish within
    --shutdown-timeout, and hands the rest back for other workers. A second signal makes it hand back at once, a third
    ends the process.

    \b
      dbjobq worker myapp.jobs
      dbjobq worker myapp.jobs --queue mail,default --concurrency 20
      dbjobq worker myapp.jobs --processes 4 --log-json
      dbjobq worker myapp.jobs --reload --log-level debug

    \b
    Exit codes:
      0  it was told to stop
      1  it cannot start, or cannot go on: a module, the database or its
         tables are not as they should be. It waits for a server that is away
    """  # noqa: D301 - click's mark for a block that is not wrapped
    from dbjobq.cli.serving.parent import Processes, watch_python_files
    from dbjobq.cli.serving.serve import WorkerSettings, leave, serve

    log_to_stderr(log_level, as_json=log_json)
    chosen = WorkerSettings(**settings)
    if processes == 1 and not reload_:
        parent_socket = None if lifeline is None else Lifeline(socket.socket(fileno=lifeline))
        leave(serve(database, chosen, parent_socket))
    if reload_:
        chosen = replace(chosen, shutdown_timeout=min(chosen.shutdown_timeout, RELOAD_TIMEOUT))
    parent = Processes(
        [*chosen.arguments(), f"--log-level={log_level}", *["--log-json"] * log_json],
        database.environment(),
        size=processes,
        shutdown_timeout=chosen.shutdown_timeout,
        changes=watch_python_files(Path.cwd()) if reload_ else None,
    )
    raise click.exceptions.Exit(parent.run())
