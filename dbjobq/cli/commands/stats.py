"""`dbjobq stats`: how many jobs there are, by status and by queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from dbjobq.cli.output import echo_json, json_option, table
from dbjobq.cli.settings import Database, database_options
from dbjobq.storage.values import Count, Glance

__all__ = ["stats"]


@click.command(short_help="Count jobs, by status and by queue.")
@click.option("--exact", is_flag=True, help="Count every job, however long that takes.")
@json_option
@database_options
def stats(database: Database, *, exact: bool, as_json: bool) -> None:
    """Count jobs, by status and by queue.

    \b
    Of each queue:
      ready      jobs that could run now
      scheduled  jobs that are not due yet: delayed ones, and retries
      running    jobs that a worker holds
      oldest     for how long the oldest ready job has been waiting

    So that this is quick, it counts to 100,000 of each kind and then prints 100,000+. The number of completed jobs is
    estimated beyond that, and printed as ~3,000,000. --exact counts all.

    \b
      dbjobq stats
      dbjobq stats --json | jq .statuses.failed
    """  # noqa: D301 - click's mark for a block that is not wrapped
    with database.queue() as jobs:
        found = jobs.storage.glance().run()
        counts = jobs.stats() if exact else None
    statuses: dict[str, Count] = {str(status): count for status, count in found.statuses.items()}
    statuses["total"] = _total(found.statuses.values())
    if counts is not None:
        statuses = {status: Count(number) for status, number in counts.items()}
    if as_json:
        echo_json(_as_json(statuses, found))
        return
    click.echo(table(("status", "jobs"), statuses.items()))
    click.echo()
    rows = ((*queue[:4], "" if queue.oldest_ready is None else f"{queue.oldest_ready:.1f} s") for queue in found.queues)
    click.echo(table(("queue", "ready", "scheduled", "running", "oldest"), rows))
    if found.more:
        click.echo(f"only {len(found.queues):,} queues are shown", err=True)


def _total(counts: Iterable[Count]) -> Count:
    counts = list(counts)
    for how in ("about", "at least"):
        if any(count.how == how for count in counts):
            return Count(sum(count.jobs for count in counts), how)
    return Count(sum(count.jobs for count in counts))


def _as_json(statuses: Mapping[str, Count], found: Glance) -> dict[str, Any]:
    """Return numbers as numbers; which of them are not exact stands beside."""
    queues = [queue._asdict() for queue in found.queues]
    return {
        "statuses": {status: count.jobs for status, count in statuses.items()},
        "queues": [{name: v.jobs if isinstance(v, Count) else v for name, v in queue.items()} for queue in queues],
        "more_queues": found.more,
        "inexact": {
            "statuses": _inexact(statuses),
            "queues": {queue["queue"]: inexact for queue in queues if (inexact := _inexact(queue))},
        },
    }


def _inexact(counts: Mapping[str, object]) -> dict[str, str]:
    return {n: count.how for n, count in counts.items() if isinstance(count, Count) and count.how != "exactly"}
