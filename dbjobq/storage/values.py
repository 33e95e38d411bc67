"""The values that pass through the port: jobs to be written, claims, outcomes, exchanges and their answers. Data only.

Values of which a worker makes tens of thousands a second are tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from dbjobq.codec.json import as_arguments, load_arguments, read_json
from dbjobq.errors import JobNotFound
from dbjobq.ids import as_uuid
from dbjobq.models import Event, Job, Status

__all__ = [
    "UNIQUE",
    "Answer",
    "Bounds",
    "Claim",
    "Count",
    "Exchange",
    "Failure",
    "Glance",
    "Idle",
    "Listing",
    "NewJob",
    "Notice",
    "Outcome",
    "QueueGlance",
    "QueueStats",
    "Rescued",
    "job_from_row",
    "known_form",
    "known_id",
]


@dataclass(slots=True, kw_only=True)
class NewJob:
    """A job to be written: every value is checked, and none is missing."""

    id: str
    type: str
    data: str
    queue: str
    priority: int
    max_retries: int
    timeout: float | None = None
    execute_at: datetime | None = None
    delay: float | None = None
    unique_key: str | None = None
    own_id: bool = False
    """Whether the caller chose the id, so that there may be such a job already."""
    notify: bool = True
    """Whether to wake a sleeping worker."""

    @property
    def plain(self) -> bool:
        """Whether the job can be written without looking up or computing anything."""
        return self.execute_at is None and self.delay is None and self.unique_key is None and not self.own_id


UNIQUE: Final = 1
"""A tie: the job has a unique key, which is free again when the job ends."""


class Claim(NamedTuple):
    """A job that somebody holds, as its claim returned it. A tuple: a worker makes tens of thousands a second."""

    id: str
    claim: str
    """The fence: a number drawn anew for each claim."""
    attempts: int
    type: str
    data: str
    queue: str
    priority: int
    max_retries: int
    timeout: float | None
    ties: int
    """Bits for everything that hangs on the job's end (`UNIQUE`); 0 for most jobs."""
    created_at: float
    execute_at: float | None
    claimed_at: float
    suspect: bool = False
    """Whether a worker died while it held this job, perhaps because of it."""

    @property
    def fragile(self) -> bool:
        """Whether it must not be held unstarted: it may kill its worker and others with it, or has no retry left."""
        return self.suspect or self.attempts >= self.max_retries

    def job(self, worker_id: str | None) -> Job:
        """Return the `Job`, as `complete(job)` and `fail(job, …)` take it."""
        claimed = _time(self.claimed_at)
        job = Job(
            id=self.id,
            type=self.type,
            data=load_arguments(self.data),
            status="running",
            queue=self.queue,
            priority=self.priority,
            attempts=self.attempts,
            max_retries=self.max_retries,
            execute_at=None if self.execute_at is None else _time(self.execute_at),
            created_at=_time(self.created_at),
            updated_at=claimed,
            started_at=claimed,
            worker_id=worker_id,
        )
        vars(job)["_claim"] = self  # not a field: `asdict`, `==` and `repr` are about the job
        return job


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


class Outcome(NamedTuple):
    """How one attempt ended."""

    claim: Claim
    event: Event
    """`complete`, `retry`, `fail`, `release` or `unknown`."""
    error: str | None = None
    result: str | None = None
    """The result as JSON text; None for none."""
    delay: float = 0.0
    """Seconds until the retry; for `unknown`, the time after which the job fails instead of being put off."""
    exception: BaseException | None = None
    """The exception of a job that has failed for good, or whose type was not found: for the log."""

    @property
    def plain(self) -> bool:
        """Completed, with nothing to keep and nothing to free: the common case, and the cheapest to write."""
        return self.event == "complete" and self.result is None and self.error is None and not self.claim.ties


class Exchange(NamedTuple):
    """One message of a worker to the database: results, how many jobs it wants, and what else goes with them."""

    outcomes: Sequence[Outcome] = ()
    """Results to write. They are durable when the exchange has been answered."""
    want: int = 0
    """How many jobs to claim at most."""
    beat: float | None = None
    """Seconds by which a claim prolongs the worker's life; None for not at all."""
    promote: bool = False
    """Whether scheduled jobs may be due: they are made ready before jobs are claimed."""
    progress: Mapping[Claim, str] = {}
    """The progress of running jobs, as JSON text."""
    rush: bool = False
    """Whether the worker will claim again soon, whatever it gets, so that enqueues need not notify."""
    space: Callable[[], int] | None = None
    """Tells how many bytes of large arguments there is room for; called only if there are any. One job always comes."""


class Answer(NamedTuple):
    """The database's answer to one exchange."""

    claims: list[Claim]
    refused: list[Outcome]
    """Results that came too late: their jobs are held by others, or were cancelled."""
    next_due: float | None
    """Seconds until the next scheduled job is due, as far as it was asked for."""
    cancelled: Collection[str] = ()
    """The ids of those of them whose jobs are cancelled."""
    gave_up: Sequence[Outcome] = ()
    """The `unknown` outcomes whose jobs have failed: no worker has known their type for too long."""


class Idle(NamedTuple):
    """The database's answer to a worker that is about to sleep."""

    look_in: float | None
    """Seconds after which to claim once more before sleeping: somebody may have enqueued without notifying. Or None."""
    next_due: float | None
    """Seconds until the next scheduled job is due."""
    registered: bool = True
    """Whether the database still knows this worker; an unknown one gets no jobs."""


class Rescued(NamedTuple):
    """A job taken from a worker that is gone."""

    id: str
    type: str
    queue: str
    attempts: int
    """The failed attempts before this one, which failed with its worker."""
    dead: bool
    """Whether no retry was left."""


class Notice(NamedTuple):
    """A notification to a worker, between two polls.

    `echo` is the answer to a worker's own question whether notifications arrive, or to another worker's; `deaf` says
    that no answer came.
    """

    kind: Literal["work", "cancel", "echo", "deaf"]
    job_id: str = ""


class QueueStats(NamedTuple):
    """The counts of one queue, and how many seconds its oldest ready job has waited."""

    queue: str
    ready: int
    scheduled: int
    running: int
    oldest_ready: float | None


class Count(NamedTuple):
    """A number of jobs, and whether it is exact, a lower bound or an estimate."""

    jobs: int
    how: Literal["exactly", "at least", "about"] = "exactly"

    def __str__(self) -> str:
        """Return `12`, `100,000+` or `~3,000,000`."""
        return f"{'~' * (self.how == 'about')}{self.jobs:,}{'+' * (self.how == 'at least')}"


class QueueGlance(NamedTuple):
    """The counts of one queue within bounds, and how many seconds its oldest ready job has waited."""

    queue: str
    ready: Count
    scheduled: Count
    running: Count
    oldest_ready: float | None


class Glance(NamedTuple):
    """The counts of jobs by status and by queue, as far as they can be had soon."""

    statuses: Mapping[Status, Count]
    queues: Sequence[QueueGlance]
    more: bool
    """Whether there are more queues than these."""


class Bounds(NamedTuple):
    """The bounds of a search for jobs."""

    jobs: int
    """The most jobs that are looked at."""
    size_bytes: int | None
    """The most bytes of arguments and results together; None to read jobs without either."""


class Failure(NamedTuple):
    """The error of one attempt; `attempt` is its number, None if it was not counted as one."""

    attempt: int | None
    at: datetime
    error: str


class Listing(NamedTuple):
    """The jobs that were found within bounds."""

    jobs: list[Job]
    unsearched: bool
    """Whether there are older jobs that were not looked at."""
    cut: bool
    """Whether jobs that were found are left out, since they are too large together."""


def known_id(job_id: str) -> str | None:
    """Return an id's canonical text; None if the text cannot be an id."""
    try:
        return as_uuid(job_id)
    except ValueError:
        return None


def known_form(job_id: str) -> str:
    """Return an id's canonical text. Raises JobNotFound if the text cannot be an id."""
    if (known := known_id(job_id)) is None:
        raise JobNotFound(job_id)
    return known


def job_from_row(row: Mapping[str, Any]) -> Job:
    """Return a `Job` from a row that has its fields as columns, JSON as text.

    Times are seconds since 1970, or aware datetimes; they become UTC.

    A row that was written by hand and cannot be read does not keep other jobs from being listed: its `error` says so.
    """
    values = {k: v.astimezone(UTC) if isinstance(v, datetime) else v for k, v in row.items()}
    values |= {k: _time(v) for k, v in values.items() if isinstance(v, float) and k.endswith("_at")}
    values |= {"id": str(row["id"]), "data": {}, "result": None}
    unread: list[str] = []
    for name in ("data", "result"):
        try:
            read = None if row[name] is None else read_json(row[name])
            values[name] = as_arguments(read) if name == "data" else read
        except ValueError as error:
            unread.append(f"its {name} cannot be read: {error}")
        except TypeError as error:
            unread.append(str(error))
    if unread:
        values["error"] = "\n".join([*unread, *filter(None, [row["error"]])])
    return Job.from_dict(values)
