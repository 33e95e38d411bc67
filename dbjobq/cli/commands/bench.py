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

NAMES: Final = ("enqueue", "bulk", "drain", "idle", "load", "backlog", "gate")
"""The measurements, which only running them loads."""
QUICK: Final[dict[str, Any]] = {
    "only": NAMES[:-1],
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


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Measure this, and no more; may be repeated.")
@click.option("--quick", is_flag=True, help="A glance: 2 rounds of a tenth of the size, without the gate.")
@click.option("--rounds", type=_at_least_one, help="Rounds to measure, after one that is not.  [default: 5]")
@click.option("--jobs", type=_at_least_one, help="To enqueue in bulk, and to drain, each round.  [default: 20000]")
@click.option("--backlog", type=_at_least_one, help="Jobs of each kind that lie around.  [default: 200000]")
@click.option("--data-bytes", type=click.IntRange(0), help="Of a job's arguments, as JSON.  [default: 100]")
@click.option("--concurrency", type=_at_least_one, help="Of the worker process.  [default: 100]")
@click.option("--markdown", is_flag=True, help="Print the tables in Markdown.")
@click.option("--wide", is_flag=True, help="Print the tables as they are, however narrow the terminal.")
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
    """Measure how fast the queue is on your server.

    Each figure stands beside that of the least SQL that could do the same, taken in the same round; what is printed
    are the medians of the rounds and of their ratios. docs/benchmarks.md says how each is taken.

    It works in schemas of its own (dbjobq_bench_...), and drops them. Where no server is named it starts one, which
    is durable as a server should be (fsync on).

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
