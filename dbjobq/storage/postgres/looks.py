"""Searches for jobs in PostgreSQL, page by page, so that no statement reads all of history.

`listed` finds all that was asked for, however much it has to read; `looked` stops after a number of jobs, or of bytes,
and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from dbjobq.models import STATUSES, Job, Status
from dbjobq.storage.base import JobFilter
from dbjobq.storage.postgres.statements import LOOKING_UP
from dbjobq.storage.postgres.steps import Call, Send, Sender
from dbjobq.storage.values import (
    Bounds,
    Count,
    Failure,
    Glance,
    Listing,
    QueueGlance,
    QueueStats,
    job_from_row,
    known_id,
)

__all__ = [
    "PAGE",
    "chosen",
    "counted",
    "diagnosed",
    "failures",
    "found",
    "glanced",
    "listed",
    "looked",
    "progress",
    "queue_stats",
]

PAGE: Final = 10_000
"""Jobs that one statement looks at: some tens of thousands of the server's pages, a tenth of a second."""
NO_LIMIT: Final = 2**62
"""A limit that stands for none."""
MOST_QUEUES: Final = 1_000
"""The most queues that are counted, as glance_queues.sql has it."""


class _Search:
    """A search in pages, from the newest job on.

    Args:
        send: Makes the steps.
        wanted: The filter.
        limit: How many jobs to find at most; None for all.
        within: How many jobs to look at, at most; None for all.
        before: Only jobs that are older than this one.
    """

    def __init__(
        self, send: Sender, wanted: JobFilter, limit: int | None, within: int | None, before: str | None = None
    ) -> None:
        self._send, self._limit, self._within = send, limit, within
        self._status = wanted["status"]
        self._form: str = self._status or "all"
        self._where = {"queue": wanted["queue"], "type": wanted["type"]}
        self.before = before
        """The id from which to search on."""
        self._looked = self._found = 0
        self.ended = limit == 0
        """Whether nothing is left that could be found, or has to be."""

    @property
    def spent(self) -> bool:
        """Whether the search may look at no more."""
        return self._within is not None and self._looked >= self._within

    def choose(self) -> Call[None]:
        """Choose how waiting jobs are looked for: sorted if they are few, else among the newest of all jobs.

        Waiting jobs have no index by age. Where many wait, the newest of all jobs are likely to be among them.
        """
        if self._status == "pending":
            ((waiting,),) = yield self._send("waiting")
            if waiting < PAGE or self._limit is None:
                self._form = "waiting"

    def page(self) -> Call[list[str]]:
        """Return the ids of the next page."""
        left = None if self._limit is None else self._limit - self._found
        if self._form == "waiting":  # all remaining jobs at once: each page would have to sort them again
            scan, want = None, NO_LIMIT if left is None else left
        else:
            scan = PAGE if self._within is None else min(PAGE, self._within - self._looked)
            want = PAGE if left is None else min(PAGE, left)
        params = {"before": self.before, "scan": scan, "limit": want}
        ((ids, self.before),) = yield self._send(f"search_{self._form}", self._where | params)
        self._looked += scan or 0
        self._found += len(ids)
        self.ended = self.before is None or self._found == self._limit
        if self._form == "pending" and self._within is None:
            self._form = "waiting"  # the rest is not among the newest jobs
        return list(ids)


def chosen(send: Sender, before: str | None, wanted: JobFilter) -> Call[tuple[list[str], str | None]]:
    """Return the ids of the jobs on one page, older than `before`, and the id from which to search on."""
    search = _Search(send, wanted, None, None, before)
    yield from search.choose()
    ids = yield from search.page()
    return ids, search.before


def listed(send: Sender, limit: int | None, wanted: JobFilter) -> Call[list[Job]]:
    """Return all jobs that match, up to a limit, newest first."""
    search = _Search(send, wanted, limit, None)
    yield from search.choose()
    jobs: list[Job] = []
    while not search.ended:
        ids = yield from search.page()
        jobs += (yield from _rows(send, "listed_whole", wanted, {"ids": ids}))[0]
    return jobs


def looked(send: Sender, limit: int, wanted: JobFilter, bounds: Bounds) -> Call[Listing]:
    """Return jobs that match as far as the bounds allow, newest first."""
    search = _Search(send, wanted, limit, bounds.jobs)
    yield from search.choose()
    ids: list[str] = []
    while not search.ended and not search.spent:
        ids += yield from search.page()
    form = "listed_brief" if bounds.size_bytes is None else "listed_within"
    jobs, last = yield from _rows(send, form, wanted, {"ids": ids, "bytes": bounds.size_bytes})
    return Listing(jobs, unsearched=not search.ended, cut=bool(ids) and last != ids[-1])


def glanced(send: Sender) -> Call[Glance]:
    """Return the number of jobs in each status and in each queue, as far as that can be counted soon."""
    yield Send(LOOKING_UP, {})
    (row,) = yield send("glance", as_dicts=True)
    statuses: dict[Status, Count] = {
        status: _count(row, status) for status in ("pending", "running", "failed", "cancelled")
    }
    completed = max(0, row["ended"] - row["failed"] - row["cancelled"])
    statuses["completed"] = Count(completed, "exactly" if row["exact"] else "about")
    rows = yield send("glance_queues", as_dicts=True)
    queues = [
        QueueGlance(
            row["name"], _count(row, "ready"), _count(row, "scheduled"), _count(row, "running"), row["oldest_ready"]
        )
        for row in rows[:MOST_QUEUES]
    ]
    return Glance({status: statuses[status] for status in STATUSES}, queues, more=len(rows) > MOST_QUEUES)


def _count(row: Mapping[str, Any], what: str) -> Count:
    return Count(row[what], "at least" if row[f"{what}_more"] else "exactly")


def _rows(send: Sender, form: str, wanted: JobFilter, params: Mapping[str, Any]) -> Call[tuple[list[Job], str | None]]:
    """Return jobs by their ids, and the last one's id; jobs that have just left the wanted status are left out."""
    if not params["ids"]:
        return [], None
    rows = yield send(form, params, as_dicts=True, binary=True)
    jobs = [job_from_row(row) for row in rows if wanted["status"] in {None, row["status"]}]
    return jobs, str(rows[-1]["id"]) if rows else None


def found(send: Sender, job_id: str) -> Call[Job | None]:
    """Return one job; None if there is none of that id."""
    if (known := known_id(job_id)) is None:
        return None
    rows = yield send("get_job", {"id": known}, as_dicts=True, binary=True)
    return job_from_row(rows[0]) if rows else None


def failures(send: Sender, job_id: str, limit: int) -> Call[list[Failure]]:
    """Return how a job's last attempts failed, the oldest first."""
    if (known := known_id(job_id)) is None:
        return []
    rows: list[Any] = yield send("failures", {"id": known, "limit": limit})
    return [Failure(attempt, at.astimezone(UTC), error) for attempt, at, error in reversed(rows)]


def progress(send: Sender, job_id: str) -> Call[dict[str, Any] | None]:
    """Return what a running job last said of its progress; None for nothing, or no such job."""
    if (known := known_id(job_id)) is None:
        return None
    rows = yield send("get_progress", {"id": known})
    return rows[0][0] if rows else None


def counted(send: Sender) -> Call[dict[Status, int]]:
    """Return the number of jobs of each status."""
    (counts,) = yield send("stats", as_dicts=True)
    return dict(counts)


def queue_stats(send: Sender) -> Call[list[QueueStats]]:
    """Return the figures of each queue."""
    return [QueueStats(*row) for row in (yield send("queue_stats"))]


def diagnosed(send: Sender, statement: str, *, pinned: bool) -> Call[list[dict[str, Any]]]:
    """Return the rows of one of the doctor's statements; `pinned`: see `LOOKING_UP`."""
    if pinned:
        yield Send(LOOKING_UP, {})
    rows: list[dict[str, Any]] = yield send(statement, as_dicts=True)
    return rows
