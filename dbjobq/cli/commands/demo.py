"""`dbjobq demo`: the queue at work on real files; the story is in `dbjobq.demo`."""

from __future__ import annotations

from pathlib import Path

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.serving.lifeline import WorkerProcess
from dbjobq.cli.settings import dsn_option, libpq_form, listen_dsn_option
from dbjobq.cli.stage import leave_on_sigterm, require_rich

__all__ = ["demo"]


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--lease", type=Seconds(1), default=3.0, show_default=True, help="Seconds, of the workers.")
@click.option("--pings", type=click.IntRange(0), default=200, show_default=True, help="Jobs that measure the pick-up.")
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
    """See the queue at work on the text files below PATH.

    By default these are Python's own modules. One job a file counts its lines, words and identifiers; half-way one
    worker is killed with SIGKILL, and its jobs go on elsewhere. At the end the totals stand beside those of a plain
    loop over the same files: exit code 1 if they differ, or if a job is lost.

    Where no server is named it starts one of its own. On a server it uses a schema of its own, and drops it.

    \b
      pip install 'dbjobq[demo]'
      dbjobq demo
      dbjobq demo ~/src --workers 4 --json
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
