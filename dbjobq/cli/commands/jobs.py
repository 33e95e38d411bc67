"""`dbjobq jobs`: look at jobs, try them again, cancel them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from dbjobq.checks import check_seconds
from dbjobq.cli.output import as_json as job_as_json
from dbjobq.cli.output import cut, echo_json, json_option, moment, plural, printable, table, width
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.settings import Database, database_options
from dbjobq.errors import JobNotFound
from dbjobq.models import STATUSES, Job, Status
from dbjobq.queue.base import job_filter
from dbjobq.storage.values import Bounds

if TYPE_CHECKING:
    from dbjobq.queue.queues import JobQueue

__all__ = ["jobs"]

LONGEST_ERROR: Final = 60
"""Characters of an error in a table."""
LONGEST_VALUE: Final = 4_000
"""Characters of arguments or of a result that are shown to people."""
LARGEST_LISTING: Final = 16 * 1024 * 1024
"""Bytes of arguments and results that are listed for programs."""
ATTEMPTS: Final = 25
"""How many of a job's attempts are shown with their errors: the last ones."""
LARGEST_NUMBER: Final = 2**62
"""The largest number of jobs that can be asked for: more than PostgreSQL can hold, and a number that it can."""
JOBS_A_STATEMENT: Final = 1_000
"""Jobs that one statement moves."""


def _countable(_ctx: click.Context, _param: click.Parameter, number: int) -> int:
    """Return a number of jobs. Raises BadParameter for one that PostgreSQL has no type for."""
    if number > LARGEST_NUMBER:  # not said by the option's range: that would be in its help
        raise click.BadParameter(f"{number} is more than PostgreSQL can count")
    return number


_STATUS: Final = f"Only jobs in this status: {', '.join(STATUSES[:-1])} or {STATUSES[-1]}."

_ids = click.argument("ids", nargs=-1, metavar="[ID]...")
_queue = click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
_type = click.option("--type", "job_type", metavar="NAME", help="Only jobs of this type, such as myapp.jobs.send.")


@click.group(short_help="List jobs, show one, run failed ones again, cancel.")
def jobs() -> None:
    """List jobs, show one with all that is known of it, run failed ones again, or cancel some."""


@jobs.command("list", short_help="List jobs, the newest first.")
@click.option("--status", type=click.Choice(STATUSES), metavar="STATUS", help=_STATUS)
@_queue
@_type
@click.option(
    "--limit",
    type=click.IntRange(0),
    callback=_countable,
    default=50,
    show_default=True,
    metavar="JOBS",
    help="List so many jobs at most.",
)
@click.option(
    "--search",
    type=click.IntRange(1),
    callback=_countable,
    default=10_000,
    show_default=True,
    metavar="JOBS",
    help="Look for them among so many of the newest jobs.",
)
@click.option("--wide", is_flag=True, help="Print all columns, even if the terminal is too narrow.")
@json_option
@database_options
def list_jobs(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    status: Status | None,
    queue: str | None,
    job_type: str | None,
    limit: int,
    search: int,
    wide: bool,
    as_json: bool,
) -> None:
    """List jobs, the newest first.

    Only the newest 10,000 jobs are searched, so that a look is quick however many there are; --search looks at more.
    With --json arguments and results are printed, too, 16 MiB of them at most. Where that left something out, a line
    on standard error says so.

    \b
      dbjobq jobs list --status failed
      dbjobq jobs list --type myapp.jobs.send --search 1000000
      dbjobq jobs list --queue mail --json | jq '.[].id'
    """  # noqa: D301 - click's mark for a block that is not wrapped
    bounds = Bounds(search, LARGEST_LISTING if as_json else None)
    with database.queue() as jobs:
        found = jobs.storage.look(limit, bounds, **job_filter(status, queue, job_type)).run()
    if as_json:
        echo_json([job_as_json(job) for job in found.jobs])
    elif found.jobs:
        columns = width()
        click.echo(_wide(found.jobs) if wide or columns is None else _narrow(found.jobs, columns))
    if found.unsearched:
        which = f"{status} jobs" if status not in {None, "pending"} else "jobs"
        click.echo(f"only the newest {search:,} {which} were searched: --search looks at more", err=True)
    elif not found.jobs and not as_json:
        click.echo("no such jobs", err=True)
    if found.cut:
        click.echo(
            f"only the newest {len(found.jobs):,} are shown: their arguments and results are over {LARGEST_LISTING:,} "
            "bytes together; `dbjobq jobs show ID --json` prints one",
            err=True,
        )


def _wide(jobs: Iterable[Job]) -> str:
    header = ("id", "status", "type", "queue", "priority", "attempts", "created", "error")
    rows = (
        (
            j.id,
            j.status,
            j.type,
            j.queue,
            j.priority,
            j.attempts,
            moment(j.created_at),
            cut(j.error or "", LONGEST_ERROR),
        )
        for j in jobs
    )
    return table(header, rows)


def _narrow(jobs: Iterable[Job], columns: int) -> str:
    """Return a line for each job, and one below it for its error."""
    lines = [f"{'id':<36}  {'status':<9}  type"]
    for job in jobs:
        lines.append(cut(f"{job.id}  {job.status:<9}  {printable(job.type)}", columns))
        if job.error:
            lines.append(cut(f"    {job.error}", columns))
    return "\n".join(lines)


@jobs.command(short_help="Show all that is known of one job.")
@click.argument("job_id", metavar="ID")
@json_option
@database_options
def show(database: Database, *, job_id: str, as_json: bool) -> None:
    """Show all that is known of one job: its arguments, its result, and the error of each failed attempt.

    Values of more than 4,000 characters, and all but the last 25 errors, are left out; --json prints all of the values.

    \b
      dbjobq jobs show 0190f3a0-6c1e-7a52-b3d4-5f2c8a9e1b70
      dbjobq jobs show 0190f3a0-6c1e-7a52-b3d4-5f2c8a9e1b70 --json | jq .result

    The exit code is 1 if there is no such job.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    with database.queue() as jobs:
        job, progress = jobs.get_job(job_id), jobs.get_progress(job_id)
        failures = jobs.storage.failures(job_id, ATTEMPTS).run()
    if job is None:
        raise JobNotFound(job_id)
    known = job_as_json(job) | {"progress": progress}
    if as_json:
        told = [{**failure._asdict(), "at": failure.at.isoformat()} for failure in failures]
        echo_json(known | {"failures": told})
        return
    for name, value in known.items():
        if name not in {"data", "result", "error"} and value is not None:
            click.echo(f"{name + ':':<13}{printable(str(value))}")
    click.echo(f"{'data:':<13}{_shown(job.data)}")
    if job.result is not None:
        click.echo(f"{'result:':<13}{_shown(job.result)}")
    for failure in failures:
        number = f"attempt {failure.attempt}, " if failure.attempt else ""
        click.echo(f"\n{number}{moment(failure.at)}:")
        _print_error(failure.error)
    if not failures and job.error:
        _print_error(job.error)
    if len(failures) == ATTEMPTS:
        click.echo(f"\nOnly the last {ATTEMPTS} are shown.")


def _print_error(error: str) -> None:
    for line in error.splitlines():
        click.echo(f"  {printable(line)}".rstrip())


def _shown(value: Any) -> str:
    """Return a value as JSON, as far as a person reads."""
    text = json.dumps(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}… ({len(text):,} characters; --json prints all)"


@jobs.command(short_help="Run failed or cancelled jobs again.")
@_ids
@click.option("--all-failed", is_flag=True, help="All failed jobs, or all those of --queue and --type.")
@_queue
@_type
@click.option(
    "--delay", type=Seconds(0), default=0.0, metavar="SECONDS", help="Run them not before so many seconds from now."
)
@json_option
@database_options
def retry(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    ids: tuple[str, ...],
    all_failed: bool,
    queue: str | None,
    job_type: str | None,
    delay: float,
    as_json: bool,
) -> None:
    """Run failed or cancelled jobs again. The attempts that have failed before no longer count.

    \b
      dbjobq jobs retry 0190f3a0-6c1e-7a52-b3d4-5f2c8a9e1b70
      dbjobq jobs retry --all-failed --type myapp.jobs.send

    The exit code is 1 if one of the IDs is not there, or has neither failed nor been cancelled. The others are run
    all the same.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    if all_failed == bool(ids):
        raise click.UsageError("name jobs by their ids, or give --all-failed")
    if (queue or job_type) and not all_failed:
        raise click.UsageError("--queue and --type go with --all-failed")
    check_seconds(delay, "delay_seconds")
    with database.queue() as jobs:
        if ids:
            _each(ids, jobs, lambda job_id: jobs.retry(job_id, delay), "retried", as_json=as_json)
            return
        chosen = _chosen(jobs, ["failed"], queue, job_type)
        _many(chosen, lambda some: jobs.storage.retry_many(some, delay).run(), "retried", as_json=as_json)


@jobs.command(short_help="Cancel jobs that wait or run.")
@_ids
@click.option("--all", "all_of_them", is_flag=True, help="All that wait or run, or all those of the three below.")
@click.option("--status", type=click.Choice(("pending", "running")), help="Only jobs in this status.")
@_queue
@_type
@click.option("--yes", is_flag=True, help="Do not ask before --all cancels.")
@json_option
@database_options
def cancel(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    ids: tuple[str, ...],
    all_of_them: bool,
    status: Status | None,
    queue: str | None,
    job_type: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel jobs that wait or run.

    A running job counts as cancelled at once. Its function is told within a second, and what it returns later is
    dropped. With --all the jobs are counted first, and nothing is done before you have said yes; jobs that come
    meanwhile are left alone.

    \b
      dbjobq jobs cancel 0190f3a0-6c1e-7a52-b3d4-5f2c8a9e1b70
      dbjobq jobs cancel --all --status pending --type myapp.jobs.send

    The exit code is 1 if one of the IDs is not there, or has ended already. The others are cancelled all the same.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    if all_of_them == bool(ids):
        raise click.UsageError("name jobs by their ids, or give --all")
    if (status or queue or job_type) and not all_of_them:
        raise click.UsageError("--status, --queue and --type go with --all")
    with database.queue() as jobs:
        if ids:
            _each(ids, jobs, jobs.cancel, "cancelled", as_json=as_json)
            return
        chosen = _chosen(jobs, [status] if status else ["pending", "running"], queue, job_type)
        if chosen and not yes:
            click.confirm(f"Cancel {plural(len(chosen), 'job')}?", abort=True, err=True)
        _many(chosen, lambda some: jobs.storage.cancel_many(some).run(), "cancelled", as_json=as_json)


def _chosen(queue: JobQueue, statuses: Iterable[Status], name: str | None, job_type: str | None) -> list[str]:
    """Return the ids of all jobs that are meant: what comes later is not."""
    ids: list[str] = []
    for status in statuses:
        before: str | None = None
        while True:
            some, before = queue.storage.ids(before, **job_filter(status, name, job_type)).run()
            ids += some
            if before is None:
                break
    return ids


def _many(ids: Sequence[str], act: Callable[[Sequence[str]], int], done: str, *, as_json: bool) -> None:
    """Do something to many jobs, by the thousand, and say how far it is."""
    changed = 0
    if not ids and not as_json:
        click.echo(f"no jobs to be {done}")
        return
    batches = [ids[at : at + JOBS_A_STATEMENT] for at in range(0, len(ids), JOBS_A_STATEMENT)]
    with click.progressbar(length=len(ids), label=plural(len(ids), "job"), file=sys.stderr) as progress:
        for batch in batches:
            changed += act(batch)
            progress.update(len(batch))
    if as_json:
        echo_json({"found": len(ids), done: changed})
    else:
        left = len(ids) - changed
        click.echo(f"{done} {plural(changed, 'job')}" + (f"; {left:,} had moved on meanwhile" if left else ""))


def _each(ids: Iterable[str], queue: JobQueue, act: Callable[[str], bool], done: str, *, as_json: bool) -> None:
    """Do something to each job; exit code 1 if one could not be had, after all the others."""
    results: list[dict[str, Any]] = []
    for job_id in ids:
        problem = _problem(queue, job_id, act)
        results.append({"id": job_id, done: problem is None, "problem": problem})
        if problem is not None:
            click.echo(f"Error: {printable(problem)}", err=True)
        elif not as_json:
            click.echo(f"{done} {job_id}")
    if as_json:
        echo_json(results)
    elif not results:
        click.echo(f"no jobs to be {done}")
    if any(result["problem"] for result in results):
        raise click.exceptions.Exit(1)


def _problem(queue: JobQueue, job_id: str, act: Callable[[str], bool]) -> str | None:
    """Act, and return why nothing was changed."""
    try:
        if act(job_id):
            return None
    except JobNotFound as error:
        return str(error)
    job = queue.get_job(job_id)
    return f"job {job_id} is {job.status if job else 'gone'}: nothing was changed"
