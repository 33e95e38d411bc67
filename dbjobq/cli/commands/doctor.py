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


@click.command()
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@json_option
@database_options
def doctor(database: Database, *, modules: tuple[str, ...], as_json: bool) -> None:
    """Say what is wrong with the database and the queues, and what to do about it.

    Looks at: the schema's version, server and settings, poolers, who keeps dead rows from being removed, dead rows,
    bloat and autovacuum, notifications, indexes, queues that nobody serves, leases of dead workers, types of jobs
    that no worker knows, and jobs that are not where they should be. With MODULE..., as `dbjobq worker` takes them,
    the types of all jobs that wait are looked up. The worst comes first, and of that what is nearest to the jobs.
    Nothing is changed.

    The exit code is 0 if there is nothing worse than a notice, 3 with a warning, 4 if something is critical; 1 if
    the database could not be looked at.

    \b
      dbjobq doctor
      dbjobq doctor myapp.jobs
      dbjobq doctor --json | jq .worst
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
