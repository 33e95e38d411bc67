"""`dbjobq jobs`: look at jobs, try them again, cancel them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from dbjobq.cli.output import as_json as job_as_json
from dbjobq.cli.output import echo_json, json_option, moment, printable, table
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.settings import Database, database_options
from dbjobq.errors import JobNotFound
from dbjobq.models import STATUSES, Job, Status

if TYPE_CHECKING:
    from dbjobq.queue import JobQueue

__all__ = ["jobs"]

LONGEST_ERROR: Final = 60
"""Characters of an error in a table."""

_ids = click.argument("ids", nargs=-1, metavar="[ID]...")
_queue = click.option("--queue", metavar="NAME", help="Only of this queue.")
_type = click.option("--type", "job_type", metavar="NAME", help="Only of this job type.")


@click.group()
def jobs() -> None:
    """Look at jobs, try them again, cancel them."""


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only in this status.")
@_queue
@_type
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="How many at most.")
@json_option
@database_options
def list_jobs(  # noqa: PLR0913 - the command's options
    database: Database, *, status: Status | None, queue: str | None, job_type: str | None, limit: int, as_json: bool
) -> None:
    """List jobs, newest first.

    \b
      dbjobq jobs list --status failed
      dbjobq jobs list --type myapp.jobs.send --limit 1000 --json
    """  # noqa: D301 - click's mark for a block that is not wrapped
    with database.queue() as jobs:
        found = jobs.list_jobs(status, limit, queue=queue, type=job_type)
    if as_json:
        echo_json([job_as_json(job) for job in found])
    elif not found:
        click.echo("no such jobs", err=True)
    else:
        header = ("id", "status", "type", "queue", "priority", "attempts", "created", "error")
        click.echo(table(header, map(_row, found)))


def _row(job: Job) -> tuple[object, ...]:
    error = (job.error or "").partition("\n")[0]
    short = error if len(error) <= LONGEST_ERROR else f"{error[: LONGEST_ERROR - 1]}…"
    return job.id, job.status, job.type, job.queue, job.priority, job.attempts, moment(job.created_at), short


@jobs.command()
@click.argument("job_id", metavar="ID")
@json_option
@database_options
def show(database: Database, *, job_id: str, as_json: bool) -> None:
    """Show all that is known of one job: its arguments, its result, its last error with the traceback."""
    with database.queue() as jobs:
        job, progress = jobs.get_job(job_id), jobs.get_progress(job_id)
    if job is None:
        raise JobNotFound(job_id)
    known = job_as_json(job) | {"progress": progress}
    if as_json:
        echo_json(known)
        return
    for name, value in known.items():
        if name not in {"data", "result", "error"} and value is not None:
            click.echo(f"{name + ':':<13}{printable(str(value))}")
    click.echo(f"{'data:':<13}{json.dumps(job.data)}")
    if job.result is not None:
        click.echo(f"{'result:':<13}{json.dumps(job.result)}")
    for line in (job.error or "").splitlines():
        click.echo(f"  {printable(line)}".rstrip())


@jobs.command()
@_ids
@click.option("--all-failed", is_flag=True, help="All failed jobs, or those of --queue and --type.")
@_queue
@_type
@click.option("--delay", type=Seconds(0), default=0.0, metavar="SECONDS", help="Not before so many seconds.")
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
    """Put failed or cancelled jobs back to pending, their attempts counted from 0.

    \b
      dbjobq jobs retry 0190f3a0-… 0190f3a1-…
      dbjobq jobs retry --all-failed --type myapp.jobs.send
    """  # noqa: D301 - click's mark for a block that is not wrapped
    if all_failed == bool(ids):
        raise click.UsageError("name jobs by their ids, or give --all-failed")
    if (queue or job_type) and not all_failed:
        raise click.UsageError("--queue and --type go with --all-failed")
    with database.queue() as jobs:
        chosen = ids or [job.id for job in jobs.list_jobs("failed", queue=queue, type=job_type)]
        _each(chosen, jobs, lambda job_id: jobs.retry(job_id, delay), "retried", as_json=as_json)


@jobs.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@database_options
def cancel(database: Database, *, ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs that are pending or running.

    A running one is cancelled at once: its function is told within a second, and its late result is refused.
    """
    with database.queue() as jobs:
        _each(ids, jobs, jobs.cancel, "cancelled", as_json=as_json)


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
