"""`dbjobq doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dbjobq.cli.output import echo_json, folded, json_option, width
from dbjobq.cli.settings import Database, database_options
from dbjobq.imports import import_modules

if TYPE_CHECKING:
    from dbjobq.doctor import Finding

__all__ = ["doctor"]

EXIT_CODES: Final = {"warning": 3, "critical": 4}
"""By the worst that was found; 1 and 2 mean what they mean everywhere."""


@click.command(short_help="Say what is wrong, and what to do about it.")
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@json_option
@database_options
def doctor(database: Database, *, modules: tuple[str, ...], as_json: bool) -> None:
    """Say what is wrong with the database and the queues, and what to do about it.

    It changes nothing, and takes a second or two. The worst is printed first. It looks at

    \b
      jobs       queues that nobody serves, functions that no worker has, jobs
                 of dead workers, jobs that are not where they should be
      tables     their version, dead rows and who keeps them from being
                 removed, bloat, autovacuum, indexes, publications
      server     its version, settings, notifications, poolers in between

    Name the MODULEs that your workers are given, and the functions of all waiting jobs are looked up in them.

    \b
      dbjobq doctor
      dbjobq doctor myapp.jobs
      dbjobq doctor --json | jq .worst

    \b
    Exit codes:
      0  nothing is wrong; there may be notices
      1  it could not look at the database
      3  there is a warning
      4  something is critical
    """  # noqa: D301 - click's mark for a block that is not wrapped
    from dbjobq.doctor import examine, ranked, worst

    import_modules(modules, Path.cwd())
    with database.storage() as storage:
        findings = ranked(examine(storage, modules))
    if as_json:
        echo_json({"worst": worst(findings), "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    raise click.exceptions.Exit(EXIT_CODES.get(worst(findings), 0))


def _print(findings: Iterable[Finding]) -> None:
    """Print what is to be mended, and in one line what is as it should be."""
    columns = width()
    fine: list[str] = []
    for finding in findings:
        if finding.severity == "ok":
            fine.append(finding.check)
            continue
        click.echo(folded(f"{finding.severity.upper()}  {finding.check}: ", finding.found, columns, indent=4))
        if finding.advice:
            click.echo(folded("    ", finding.advice, columns, indent=4))
    if fine:
        click.echo(folded("ok: ", ", ".join(fine), columns, indent=4))
