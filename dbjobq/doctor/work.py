"""Checks of the jobs: does a worker run them, can one, and is every job where it should be?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dbjobq.doctor.findings import Finding, Rows, plural, span
from dbjobq.errors import UnknownJobType
from dbjobq.jobs.registry import find

__all__ = ["judge_leases", "judge_orphans", "judge_overdue", "judge_queues", "judge_states", "judge_types"]

QUEUE_WAITED: Final = 60.0
"""Seconds that a ready job may wait while no job of its queue runs: six of a worker's longest polls."""
BEHINDHAND: Final = 600.0
"""Seconds that a ready job may wait while others of its queue run: long enough for a burst to be drained."""
UNRESCUED: Final = 30.0
"""Seconds that a dead worker's lease may stay: every worker looks for such leases, four times within its own."""


def judge_queues(rows: Rows) -> list[Finding]:
    """Judge for how long ready jobs have been waiting.

    The queues that a worker serves are not stored, and an idle worker writes nothing. So the oldest job's wait decides.
    """
    found: list[Finding] = []
    for row in rows:
        oldest, running = row["oldest_ready"] or 0.0, row["running"]
        ready = plural(row["ready"], "ready job", more=row["ready_more"])
        waits = f"queue {row['name']!r}: of {ready} the oldest has waited {span(oldest)}"
        if not running and oldest > QUEUE_WAITED:
            advice = f"start one that serves it: dbjobq worker MODULE --queue {row['name']}"
            found.append(Finding("queues", "warning", f"{waits}, and none runs: no worker serves it", advice))
        elif oldest > BEHINDHAND:
            advice = "start more workers, or raise --concurrency if the jobs wait for others"
            behind = f"{waits} while {plural(running, 'job', more=row['running_more'])} run: the workers cannot keep up"
            found.append(Finding("queues", "warning", behind, advice))
    longest = max((row["oldest_ready"] or 0.0 for row in rows), default=0.0)
    return found or [Finding("queues", "ok", f"the oldest ready job has waited {span(longest)}")]


def judge_overdue(rows: Rows) -> list[Finding]:
    """Judge whether scheduled jobs become ready when they are due."""
    return [
        Finding(
            "schedule",
            "warning",
            f"queue {row['name']!r}: {plural(row['jobs'], 'scheduled job', more=row['more'])} should have become "
            f"ready, the first {span(row['seconds'])} ago: no worker is there to see to it",
            "start a worker; of any queue",
        )
        for row in rows
    ]


def judge_leases(rows: Rows) -> list[Finding]:
    """Judge whether the jobs of workers that are gone are taken back."""
    return [
        Finding(
            "leases",
            "warning",
            f"{row['name']} holds {plural(row['jobs'], 'job')}, but its lease ended {span(row['seconds'])} ago",
            "start a worker, of any queue: it takes them back",
        )
        for row in rows
        if row["seconds"] > UNRESCUED
    ]


def judge_types(rows: Rows, modules: Iterable[str]) -> list[Finding]:
    """Judge whether workers that are given these modules know the types of the waiting jobs."""
    modules = list(modules)
    found: list[Finding] = []
    for row in rows:
        if row["unknown"]:
            refused = f"{plural(row['unknown'], 'job')} of type {row['type']!r} met workers lately that do not know it"
            advice = (
                "name its module to the workers (dbjobq worker MODULE), deploy it there, `dbjobq jobs retry` the failed"
            )
            found.append(Finding("job types", "warning", refused, advice))
        elif modules and row["waiting"] and (why := _unknown(row["type"], modules)):
            jobs = plural(row["waiting"], "job", more=row["more"])
            waiting = f"{jobs} of type {row['type']!r} wait, but nothing answers to it"
            found.append(Finding("job types", "warning", waiting, why))
    if found or modules:
        return found
    return [Finding("job types", "ok", "no worker has refused one; give MODULEs to have those that wait looked up")]


def _unknown(name: str, modules: Iterable[str]) -> str | None:
    try:
        find(name, modules)
    except UnknownJobType as error:
        return str(error)
    return None


def judge_states(rows: Rows) -> list[Finding]:
    """Judge whether each of the newest jobs stands in one place."""
    return [
        Finding(
            "states",
            "critical",
            f"{plural(row['jobs'], 'job')} in {row['names'] or 'no state at all'}, such as {row['example']}",
            "rows were changed by hand, or this is a bug: please report it. `dbjobq jobs show` tells what is known",
        )
        for row in rows
    ]


def judge_orphans(rows: Rows) -> list[Finding]:
    """Judge whether there are rows that belong to nothing."""
    return [
        Finding(
            "orphans",
            "critical",
            f"{row['rows']:,} {row['what']}, such as that of job {row['example']}",
            "rows were deleted by hand, or this is a bug: please report it. Delete them",
        )
        for row in rows
    ]
