"""`dbjobq demo`: the queue at work on real files; the story is in `dbjobq.demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.serving.lifeline import WorkerProcess
from dbjobq.cli.settings import dsn_option, libpq_form, listen_dsn_option
from dbjobq.cli.stage import leave_on_sigterm, require_rich

__all__ = ["demo"]

_LEASE: Final = "How soon the killed worker's jobs go on elsewhere, at the latest."
_PINGS: Final = "Enqueue so many more, one by one, to measure how soon each starts."


@click.command(short_help="See the queue at work, on files of this machine.")
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    metavar="N",
    help="How many worker processes to start.",
)
@click.option("--lease", type=Seconds(1), default=3.0, show_default=True, help=_LEASE)
@click.option("--pings", type=click.IntRange(0), default=200, show_default=True, metavar="JOBS", help=_PINGS)
@json_option
@dsn_option
@listen_dsn_option
def demo(  # noqa: PLR0913 - the command's options
    *,
    path: Path | None,
    workers: int,
    lease: float,
    pings: int,
    as_json: bool,
    dsn: str | None,
    listen_dsn: str | None,
) -> None:
    """See the queue at work, on the text files below PATH.

    Without a PATH these are the modules of Python's own library. There is one job for each file, which counts its
    lines, words and names. Half-way one worker is killed with SIGKILL, and its jobs go on elsewhere. At the end the
    sums are compared with those of a plain loop over the same files.

    Where no database is named, it starts a PostgreSQL server of its own and deletes it afterwards. On a server of
    yours it uses a schema of its own, and drops it.

    \b
      pip install 'dbjobq[demo]'
      dbjobq demo
      dbjobq demo ~/src --workers 4 --json

    The exit code is 1 if the sums differ, or a job is lost.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    require_rich("demo")

    from dbjobq.demo.files import standard_library
    from dbjobq.demo.run import Plan, play
    from dbjobq.rig.progress import shown

    plan = Plan(
        root=(path or standard_library()).resolve(),
        dsn=libpq_form(dsn or ""),
        listen_dsn=libpq_form(listen_dsn) if listen_dsn else None,
        workers=workers,
        lease=lease,
        pings=pings,
    )
    leave_on_sigterm()
    with shown() as progress:
        report = play(plan, WorkerProcess, progress)
    if as_json:
        echo_json(report.as_json())
    else:
        click.echo("\n" + "\n".join(report.lines()))
    raise click.exceptions.Exit(0 if report.ok else 1)
