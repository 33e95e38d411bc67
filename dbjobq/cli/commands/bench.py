"""`dbjobq bench`: how fast it is here, next to bare SQL; what is measured is in `dbjobq.bench`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from dbjobq.cli.output import echo_json, fitted, folded, json_option, markdown_table, width
from dbjobq.cli.serving.lifeline import WorkerProcess
from dbjobq.cli.settings import dsn_option, libpq_form, listen_dsn_option
from dbjobq.cli.stage import leave_on_sigterm, require_rich

if TYPE_CHECKING:
    from dbjobq.bench.report import Report

__all__ = ["bench", "print_report"]

MEASUREMENT_NAMES: Final = ("enqueue", "bulk", "drain", "idle", "load", "backlog", "gate")
"""The measurements, which only running them loads."""
QUICK: Final[dict[str, Any]] = {
    "only": MEASUREMENT_NAMES[:-1],
    "rounds": 2,
    "jobs": 2_000,
    "singles": 200,
    "pings": 40,
    "load_seconds": 1.0,
    "claims": 30,
    "backlog": 10_000,
    "gate_seconds": 0.1,
}

_at_least_one: Final = click.IntRange(1)

_ONLY: Final = f"Measure only this; may be given several times: {', '.join(MEASUREMENT_NAMES)}."
_ROUNDS: Final = "Measure everything so many times, and print medians. A first round more does not count.  [default: 5]"
_JOBS: Final = "How many jobs `bulk` enqueues and `drain` runs in each round.  [default: 20000]"
_BACKLOG: Final = "How many jobs of each kind are in the way of claims in `backlog`.  [default: 200000]"
_BYTES: Final = "The size of each job's arguments, as JSON.  [default: 100]"
_CONCURRENCY: Final = "The --concurrency of the worker process.  [default: 100]"


@click.command(short_help="Measure how fast the queue is on your server.")
@click.option("--only", multiple=True, type=click.Choice(MEASUREMENT_NAMES), metavar="NAME", help=_ONLY)
@click.option("--quick", is_flag=True, help="Take half a minute: 2 rounds, with a tenth of the jobs, without `gate`.")
@click.option("--rounds", type=_at_least_one, metavar="N", help=_ROUNDS)
@click.option("--jobs", type=_at_least_one, metavar="N", help=_JOBS)
@click.option("--backlog", type=_at_least_one, metavar="N", help=_BACKLOG)
@click.option("--data-bytes", type=click.IntRange(0), metavar="N", help=_BYTES)
@click.option("--concurrency", type=_at_least_one, metavar="N", help=_CONCURRENCY)
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
@click.option("--wide", is_flag=True, help="Print whole tables, even if the terminal is too narrow.")
@json_option
@dsn_option
@listen_dsn_option
def bench(  # noqa: PLR0913 - the command's options
    *,
    quick: bool,
    markdown: bool,
    wide: bool,
    as_json: bool,
    dsn: str | None,
    listen_dsn: str | None,
    only: tuple[str, ...],
    rounds: int | None,
    **sizes: int | None,
) -> None:
    """Measure how fast the queue is on your server. It takes three or four minutes.

    Each figure stands beside that of the least SQL that could do the same, which is measured in the same round.
    docs/benchmarks.md says how.

    \b
      enqueue  one job after the other
      bulk     many jobs in one call
      drain    empty jobs, by one worker process
      idle     how soon a worker that sleeps starts a job
      load     the same while 500 jobs a second come
      backlog  claims beside many jobs that wait, or have ended
      gate     what notifying costs when many enqueue at once

    It works in schemas of its own (dbjobq_bench_...), and drops them. Where no database is named, it starts a
    PostgreSQL server of its own, with fsync on as a server should have it.

    \b
      pip install 'dbjobq[bench]'
      dbjobq bench --quick
      dbjobq bench --dsn postgresql://localhost/app --only enqueue --only drain
      dbjobq bench --json > before.json
    """  # noqa: D301 - click's mark for a block that is not wrapped
    require_rich("bench")

    from dbjobq.bench.run import Plan, play
    from dbjobq.bench.stage import Sizes
    from dbjobq.rig.progress import shown

    given = {"only": only or None, "rounds": rounds, **sizes}
    chosen: dict[str, Any] = {**QUICK} if quick else {}
    chosen |= {name: value for name, value in given.items() if value is not None}
    about = {name: chosen.pop(name) for name in ("only", "rounds") if name in chosen}
    plan = Plan(
        dsn=libpq_form(dsn or ""),
        listen_dsn=libpq_form(listen_dsn) if listen_dsn else None,
        sizes=Sizes(**chosen),
        **about,
    )
    leave_on_sigterm()
    with shown() as progress:
        report = play(plan, WorkerProcess, progress)
    if as_json:
        echo_json(report.as_json())
    else:
        print_report(report, markdown=markdown, columns=None if wide else width())


def print_report(report: Report, *, markdown: bool, columns: int | None = None) -> None:
    """Print a report's tables; one that is wider than so many columns by its rows, one below the other."""

    def form(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
        return markdown_table(header, rows) if markdown else fitted(header, rows, columns)

    machine = report.machine.items()
    if markdown:
        click.echo(form(("machine", ""), machine))
    else:
        at = max(len(name) for name in ("machine", *report.machine)) + 2
        for name, value in (("machine", ""), *machine):
            click.echo(folded(f"{name:<{at}}", str(value), columns, indent=at).rstrip())
    for title, header, rows in report.tables():
        above = f"### {title}" if markdown else folded("", title, columns, indent=0)
        click.echo(f"\n{above}\n\n{form(header, rows)}")
