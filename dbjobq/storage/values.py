"""What passes through the port: jobs to be written, claims, outcomes, and what one is told. Data, and no more.

Tuples where a worker makes tens of thousands a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from dbjobq.codec.json import as_arguments, load_arguments, read_json
from dbjobq.errors import JobNotFound
from dbjobq.ids import as_uuid
from dbjobq.models import Event, Job, Status

__all__ = [
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
    """A job to be written: every value is checked, none is missing."""

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
    """The caller chose the id: it may be there already."""
    notify: bool = True
    """Wake a worker that is asleep."""

    @property
    def plain(self) -> bool:
        """Whether nothing has to be looked up or computed to write it."""
        return self.execute_at is None and self.delay is None and self.unique_key is None and not self.own_id


class Claim(NamedTuple):
    """A job somebody holds, as the claim returned it. A tuple: a worker makes tens of thousands a second."""

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
    unique: bool
    """It has a unique key, to be freed when it ends."""
    created_at: float
    execute_at: float | None
    claimed_at: float
    suspect: bool = False
    """A worker died while it held this job: perhaps of it."""

    @property
    def fragile(self) -> bool:
        """Whether it must not be held without being started: it may take others with it, or end with its holder."""
        return self.suspect or self.attempts >= self.max_retries

    def job(self, worker_id: str | None) -> Job:
        """Return it as a `Job`, as `complete(job)` and `fail(job, …)` take it."""
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
    """JSON text."""
    delay: float = 0.0
    """Seconds until the retry; for `unknown`, after which the job fails instead of going back."""
    exception: BaseException | None = None
    """What the function raised, where the job has failed for good: for the log."""

    @property
    def plain(self) -> bool:
        """Completed, with nothing to keep and nothing to free: the common case, and the cheapest to write."""
        return self.event == "complete" and self.result is None and self.error is None and not self.claim.unique


class Exchange(NamedTuple):
    """What a worker sends to the database at once: results, a wish for jobs, and what else there is to say."""

    outcomes: Sequence[Outcome] = ()
    """Results to write. They are durable when the exchange has been answered."""
    want: int = 0
    """How many jobs to claim at most."""
    beat: float | None = None
    """Seconds by which a claim prolongs the worker's life; None for not at all."""
    promote: bool = False
    """Scheduled jobs may be due: they are made ready before jobs are claimed."""
    progress: Mapping[Claim, str] = {}
    """What running jobs say of themselves, as JSON text."""
    rush: bool = False
    """This worker will look again soon, whatever it finds: enqueues need not notify."""
    space: Callable[[], int] | None = None
    """Tells how many bytes of large data there is room for; asked where there are any. One job comes all the same."""


class Answer(NamedTuple):
    """What one exchange with the database brought."""

    claims: list[Claim]
    refused: list[Outcome]
    """Results that came too late: their jobs are held by others, or were cancelled."""
    next_due: float | None
    """Seconds until the next scheduled job is due, as far as it was asked for."""
    gave_up: Sequence[Outcome] = ()
    """The `unknown` outcomes whose jobs have failed: no worker has known their type for too long."""


class Idle(NamedTuple):
    """What is to be known before going to sleep."""

    look_in: float | None
    """Claim once more after so many seconds, before sleeping: somebody may have enqueued without notifying."""
    next_due: float | None
    """Seconds until the next scheduled job is due."""
    registered: bool = True
    """Whether the database still knows this worker; if not, it gives it nothing."""


class Rescued(NamedTuple):
    """A job taken from a worker that is gone."""

    id: str
    type: str
    queue: str
    attempts: int
    """Before this one, which failed with its worker."""
    dead: bool
    """No retry was left."""


class Notice(NamedTuple):
    """Something a worker is told between two polls.

    `echo` comes back from a worker's own question whether it hears anything, or another's; `deaf` says that none came.
    """

    kind: Literal["work", "cancel", "echo", "deaf"]
    job_id: str = ""


class QueueStats(NamedTuple):
    """One queue at a glance; `oldest_ready` in seconds."""

    queue: str
    ready: int
    scheduled: int
    running: int
    oldest_ready: float | None


class Count(NamedTuple):
    """A number of jobs, as far as it was counted."""

    jobs: int
    how: Literal["exactly", "at least", "about"] = "exactly"

    def __str__(self) -> str:
        """`12`, `100,000+` or `~3,000,000`."""
        return f"{'~' * (self.how == 'about')}{self.jobs:,}{'+' * (self.how == 'at least')}"


class QueueGlance(NamedTuple):
    """One queue, as far as it was counted; `oldest_ready` in seconds."""

    queue: str
    ready: Count
    scheduled: Count
    running: Count
    oldest_ready: float | None


class Glance(NamedTuple):
    """How many jobs there are, as far as that can be counted soon."""

    statuses: Mapping[Status, Count]
    queues: Sequence[QueueGlance]
    more: bool
    """There are more queues."""


class Bounds(NamedTuple):
    """How far a look goes."""

    jobs: int
    """To be looked at, at most."""
    size_bytes: int | None
    """Of arguments and results together; None for neither: jobs are read without them."""


class Failure(NamedTuple):
    """What one attempt has left behind; `attempt` is its number, None if none was counted for it."""

    attempt: int | None
    at: datetime
    error: str


class Listing(NamedTuple):
    """Jobs that were found within a bound."""

    jobs: list[Job]
    unsearched: bool
    """There are older jobs that were not looked at."""
    cut: bool
    """Some that were found are left out: they are too large together."""


def known_id(job_id: str) -> str | None:
    """Return an id's canonical text; None for what cannot be an id."""
    try:
        return as_uuid(job_id)
    except ValueError:
        return None


def known_form(job_id: str) -> str:
    """Return an id's canonical text. Raises JobNotFound for what cannot be an id."""
    if (known := known_id(job_id)) is None:
        raise JobNotFound(job_id)
    return known


def job_from_row(row: Mapping[str, Any]) -> Job:
    """Return a `Job` from a row that has its fields as columns, JSON as text.

    Times are seconds since 1970, or aware; they become UTC, whatever the zone.

    What was written by hand and is not to be read does not keep the other jobs from being listed: `error` says so.
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
