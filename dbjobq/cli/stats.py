"""`dbjobq stats`: how many jobs there are, by status and by queue."""

from __future__ import annotations

import click

from dbjobq.cli.output import echo_json, json_option, table
from dbjobq.cli.settings import Database, database_options

__all__ = ["stats"]


@click.command()
@json_option
@database_options
def stats(database: Database, *, as_json: bool) -> None:
    """Count jobs by status and by queue.

    A queue's `scheduled` jobs are not due yet; `oldest` is for how long its oldest due job has been waiting.

    \b
      dbjobq stats
      dbjobq stats --json | jq .statuses.failed
    """  # noqa: D301 - click's mark for a block that is not wrapped
    with database.queue() as jobs:
        statuses, queues = jobs.stats(), jobs.storage.queue_stats().run()
    if as_json:
        echo_json({"statuses": statuses, "queues": [queue._asdict() for queue in queues]})
        return
    click.echo(table(("status", "jobs"), statuses.items()))
    click.echo()
    rows = ((*queue[:4], "" if queue.oldest_ready is None else f"{queue.oldest_ready:.1f} s") for queue in queues)
    click.echo(table(("queue", "ready", "scheduled", "running", "oldest"), rows))
