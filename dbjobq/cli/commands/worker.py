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


def _names(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that may have been given one by one, or several with commas between."""
    given = [[name for name in map(str.strip, value.split(",")) if name] for value in values]
    if not all(given):  # such as of a variable that is not set: that must not mean all queues
        raise click.BadParameter("it names no queue; leave it out for all")
    return tuple(name for names in given for name in names)


@click.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    callback=_names,
    metavar="NAME",
    help="A queue to serve; more, by repeating it or with commas, in this order.  [default: all]",
)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Jobs at once, each process.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes, under one parent.")
@click.option("--poll-interval", type=_above_zero, default=1.0, show_default=True, help="Seconds; the first wait.")
@click.option("--max-poll-interval", type=_above_zero, default=10.0, show_default=True, help="Seconds; the longest.")
@click.option(
    "--lease",
    type=Seconds(1),
    default=30.0,
    show_default=True,
    help="Seconds until a dead worker's jobs go on.",
)
@click.option(
    "--shutdown-timeout",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs get to finish; the rest is handed back.",
)
@click.option(
    "--stuck-after",
    type=Seconds(0),
    default=3600.0,
    show_default=True,
    help="Seconds until another job gets the slot of one that has no timeout and does not end; 0 for never.",
)
@click.option(
    "--unknown-within",
    type=Seconds(0),
    default=3600.0,
    show_default=True,
    help="Seconds that jobs of types which no worker knows are put off before they fail.",
)
@click.option("--reload", "reload_", is_flag=True, help="Start again when Python files here change (development).")
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON, an object a line.")
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
    """Run the jobs that MODULE... define.

    They are imported from the current directory, or from where Python looks for modules.

    Stops on SIGTERM and on SIGINT (Ctrl-C): it claims no more, lets running jobs finish, hands back what is left,
    and exits with 0. A second signal makes it hand back at once; a third ends the process as it is.

    \b
      dbjobq worker myapp.jobs
      dbjobq worker myapp.jobs --queue mail,default --concurrency 20
      dbjobq worker myapp.jobs --processes 4 --log-json      one process a core, for jobs that compute
      dbjobq worker myapp.jobs --reload --log-level debug    while you write them
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
