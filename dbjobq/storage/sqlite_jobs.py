"""A queue's steps on SQLite, in SQLAlchemy's words: one wide table, a row a job (docs/decisions/0007).

Where a job stands is its `status`. Times are microseconds since 1970, by the database's clock. The order of jobs is
that of PostgresStorage: priority, then when due, then when enqueued.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from dbjobq.errors import JobNotFound
from dbjobq.ids import JobIds
from dbjobq.models import STATUSES, Event, Job, Status, after_failure, transition
from dbjobq.storage.values import Claim, NewJob, Outcome, QueueStats, Rescued, job_from_row, known_form, known_id

__all__ = ["Steps"]

METADATA: Final = sa.MetaData()
JOBS: Final = sa.Table(
    "dbjobq_jobs",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),  # the order in which they were enqueued
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, default="pending"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("max_retries", sa.Integer, nullable=False),
    sa.Column("timeout", sa.Float),
    sa.Column("execute_at", sa.Integer),  # as enqueued
    sa.Column("due_at", sa.Integer, nullable=False),  # its place in the order, while it waits
    sa.Column("created_at", sa.Integer, nullable=False),
    sa.Column("updated_at", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Integer),
    sa.Column("finished_at", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("progress", sa.Text),
    sa.Column("unique_key", sa.Text),  # as enqueued
    sa.Column("held_key", sa.Text, unique=True),  # the same, while it is this job's
    sa.Column("worker_id", sa.Text),
    sa.Column("worker", sa.Integer),  # whose life the lease depends on
    sa.Column("expires_at", sa.Integer),  # the lease's own end, where it depends on nobody's
    sa.Column("suspect", sa.Boolean, nullable=False, default=False),  # a worker died with it: perhaps of it
    sa.Column("claim", sa.Text),  # the fence; once the job has moved on, the claim whose result was written
    sa.Index("dbjobq_jobs_claim", "status", sa.text("priority desc"), "due_at"),
)
WORKERS: Final = sa.Table(
    "dbjobq_workers",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Integer, nullable=False),
)

_MILLISECONDS: Final = "cast(round((julianday('now') - 2440587.5) * 86400000) as integer)"
NOW: Final[Any] = sa.literal_column(f"({_MILLISECONDS} * 1000)", sa.Integer)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: Final = ("execute_at", "created_at", "updated_at", "started_at", "finished_at")
_AS_GIVEN: Final = ("id", "type", "data", "queue", "priority", "max_retries", "timeout", "unique_key")

_RUNNING: Final = JOBS.c.status == "running"
_WAITING: Final = JOBS.c.status == "pending"
_GONE: Final = _RUNNING & (
    (JOBS.c.expires_at < NOW) | sa.exists().where(WORKERS.c.number == JOBS.c.worker, WORKERS.c.expires_at < NOW)
)
_LET_GO: Final[Mapping[str, Any]] = {"updated_at": NOW, "progress": None, "worker": None, "expires_at": None}
_WAITS: Final = {**_LET_GO, "status": "pending", "started_at": None, "finished_at": None, "worker_id": None}
_ENDED: Final = {**_LET_GO, "finished_at": NOW, "held_key": None}
_BACK: Final = {"claim": None, "due_at": JOBS.c.created_at}
"""To its old place, and nobody's result."""


class Steps:
    """What can be done with the jobs, on a connection that is in a transaction and the only one that writes."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def _one(self, query: sa.Select[Any]) -> Any:
        return self._connection.execute(query).first()

    def _change(self, where: Any, values: Mapping[str, Any]) -> int:
        return self._connection.execute(sa.update(JOBS).where(where).values(values)).rowcount

    def create(self) -> None:
        """Make the tables, unless they are there."""
        METADATA.create_all(self._connection)

    # Enqueue.

    def add(self, job: NewJob) -> str:
        """Write a job unless its id is there, or another holds its key; return the id of the one that is there."""
        if self._connection.execute(insert(JOBS).values(_new(job)).on_conflict_do_nothing()).rowcount:
            return job.id
        there = sa.select(JOBS.c.id).where((JOBS.c.id == job.id) | (JOBS.c.held_key == (job.unique_key or "")))
        return str(self._one(there.order_by(JOBS.c.id != job.id)).id)

    def add_many(self, like: NewJob, data: Sequence[str]) -> JobIds:
        """Write many jobs that have all but id and data in common; return their ids."""
        common = {name: value for name, value in _new(like).items() if name not in {"id", "data"}}
        ids = JobIds.new().grown(len(data))
        if data:
            rows = [{"id": i, "data": of} for i, of in zip(ids, data, strict=True)]
            self._connection.execute(insert(JOBS).values(common), rows)
        return ids

    # Claim and finish.

    def claim(self, want: int, queues: Sequence[str] | None, **holder: Any) -> list[Claim]:
        """Pending → running, for at most `want` due jobs, the queues in the order given; `holder` says who has them."""
        due = sa.select(JOBS, NOW.label("now")).where(_WAITING, JOBS.c.due_at <= NOW).limit(want)
        if queues is not None:
            due = due.where(JOBS.c.queue.in_(queues))
            if len(queues) > 1:
                due = due.order_by(sa.case({name: n for n, name in enumerate(queues)}, value=JOBS.c.queue))
        due = due.order_by(JOBS.c.priority.desc(), JOBS.c.due_at, JOBS.c.number)
        rows = self._connection.execute(due).all()
        if not rows:
            return []
        now, number = rows[0].now, secrets.token_hex(8)
        held = {"status": "running", "claim": number, "started_at": now, "updated_at": now, **holder}
        self._change(JOBS.c.number.in_([row.number for row in rows]), held)
        return [_claim(row, number, now) for row in rows]

    def take(self, queue: str, dequeuer: str, lease: float) -> Claim | None:
        """Claim one job by hand, for so many seconds; where there is none, look whether a dead worker has one."""
        holder = {"worker_id": dequeuer, "expires_at": NOW + _micros(lease)}
        claims = self.claim(1, [queue], **holder)
        if not claims and self.rescue():
            claims = self.claim(1, [queue], **holder)
        return claims[0] if claims else None

    def finish(self, outcome: Outcome) -> bool:
        """Write how an attempt ended, if its claim holds the job; return whether it did."""
        values = {**_after(outcome.event), "result": outcome.result}
        if outcome.error is not None:
            values["error"] = outcome.error
        again = {"due_at": NOW + _micros(outcome.delay), "suspect": False}
        values |= _BACK if outcome.event == "release" else again
        return self._change(_of(outcome.claim) & _RUNNING, values) == 1

    def written(self, outcome: Outcome) -> bool:
        """Tell whether a result that was not accepted is there already: it was sent before."""
        return self._one(sa.select(JOBS.c.id).where(_of(outcome.claim), ~_RUNNING)) is not None

    def held(self, claim: Claim) -> bool:
        """Tell whether a claim still holds its job."""
        return self._one(sa.select(JOBS.c.id).where(_of(claim), _RUNNING)) is not None

    def say(self, progress: Mapping[Claim, str]) -> None:
        """Write what running jobs say of themselves."""
        for claim, said in progress.items():
            self._change(_of(claim) & _RUNNING, {"progress": said})

    # By hand.

    def retry(self, job_id: str, delay: float) -> bool:
        """Failed or cancelled → pending, attempts from 0, with its unique key if nobody else has that now."""
        this = JOBS.c.id == known_form(job_id)
        again = {**_WAITS, "attempts": 0, "suspect": False, "due_at": NOW + _micros(delay)}
        if not self._change(this & JOBS.c.status.in_(("failed", "cancelled")), again):
            return self._refused(job_id)
        key = sa.update(JOBS).prefix_with("or ignore").where(this).values(held_key=JOBS.c.unique_key)
        self._connection.execute(key)
        return True

    def cancel(self, job_id: str) -> bool:
        """Pending or running → cancelled; a running job's claim holds it no more."""
        gone = {**_ENDED, "status": "cancelled", "claim": None}
        alive = (JOBS.c.id == known_form(job_id)) & (_WAITING | _RUNNING)
        return self._change(alive, gone) == 1 or self._refused(job_id)

    def _refused(self, job_id: str) -> bool:
        """Return False for a job that is there; JobNotFound for none."""
        if self.find(job_id) is None:
            raise JobNotFound(job_id)
        return False

    # Workers.

    def register(self, name: str, ttl: float) -> int:
        """Add a worker, alive from now on; return its number."""
        added = self._connection.execute(insert(WORKERS).values(name=name, expires_at=NOW + _micros(ttl)))
        return int(added.lastrowid)

    def prolong(self, worker: int, seconds: float, *, revive: bool = False) -> bool:
        """Let a worker live so long from now; one that has expired only with `revive`, for one that holds nothing."""
        it = sa.update(WORKERS).where(WORKERS.c.number == worker)
        it = it if revive else it.where(WORKERS.c.expires_at > NOW)
        return self._connection.execute(it.values(expires_at=NOW + _micros(seconds))).rowcount == 1

    def release(self, worker: int, keep: Iterable[Claim]) -> list[str]:
        """Running → pending, free of charge, for what a worker holds by the table but not by its own account."""
        held = sa.select(JOBS.c.id, JOBS.c.claim).where(JOBS.c.worker == worker, _RUNNING)
        kept = {(claim.id, claim.claim) for claim in keep}
        ids = [row.id for row in self._connection.execute(held) if (row.id, row.claim) not in kept]
        self._change(JOBS.c.id.in_(ids), {**_after("release"), **_BACK})
        return ids

    def any_lost(self) -> bool:
        """Tell whether there is anything to rescue."""
        return self._one(sa.select(JOBS.c.id).where(_GONE)) is not None

    def rescue(self) -> list[Rescued]:
        """Running → pending, or failed where no retry is left, for jobs whose worker is gone or whose lease is over."""
        rows = self._connection.execute(sa.select(JOBS).where(_GONE)).all()
        for row in rows:
            error = (
                f"WorkerLost: worker {row.worker_id} stopped renewing its lease while it held this job (killed, cut "
                f"off or paused); this was attempt {row.attempts + 1} of {row.max_retries + 1}"
            )
            event = after_failure(row.attempts, row.max_retries)
            self._change(JOBS.c.number == row.number, {**_after(event), **_BACK, "error": error, "suspect": True})
        return [Rescued(row.id, row.type, row.queue, row.attempts, row.attempts >= row.max_retries) for row in rows]

    def next_due(self, queues: Sequence[str] | None) -> float | None:
        """Return the seconds until the next job of these queues (None: all) is due."""
        later = sa.select(sa.func.min(JOBS.c.due_at) - NOW).where(_WAITING, JOBS.c.due_at > NOW)
        return _seconds(self._one(later if queues is None else later.where(JOBS.c.queue.in_(queues)))[0])

    # Look.

    def find(self, job_id: str) -> sa.RowMapping | None:
        """Return a job's row; None for what cannot be an id, too."""
        found = sa.select(JOBS).where(JOBS.c.id == (known_id(job_id) or ""))
        return self._connection.execute(found).mappings().first()

    def job(self, job_id: str) -> Job | None:
        """Return a job."""
        row = self.find(job_id)
        return None if row is None else _job(row)

    def progress(self, job_id: str) -> Any:
        """Return what a running job last said."""
        row = self.find(job_id)
        return json.loads(row["progress"] or "null") if row is not None else None

    def jobs(self, limit: int | None, **wanted: str | None) -> list[Job]:
        """Return jobs, newest first; `wanted` has values of columns, None for any."""
        found = sa.select(JOBS).where(*(JOBS.c[name] == value for name, value in wanted.items() if value is not None))
        rows = self._connection.execute(found.order_by(JOBS.c.number.desc()).limit(limit))
        return [_job(row) for row in rows.mappings()]

    def stats(self) -> dict[Status, int]:
        """Count the jobs of each status."""
        counts = self._connection.execute(sa.select(JOBS.c.status, sa.func.count()).group_by(JOBS.c.status))
        found = {row[0]: row[1] for row in counts}
        return {status: found.get(status, 0) for status in STATUSES}

    def queue_stats(self) -> list[QueueStats]:
        """Return every queue that has jobs at a glance."""
        ready = _WAITING & (JOBS.c.due_at <= NOW)
        counts = [sa.func.count().filter(which) for which in (ready, _WAITING & (JOBS.c.due_at > NOW), _RUNNING)]
        oldest = NOW - sa.func.min(JOBS.c.due_at).filter(ready)
        found = sa.select(JOBS.c.queue, *counts, oldest).group_by(JOBS.c.queue).order_by(JOBS.c.queue)
        rows: Any = self._connection.execute(found)
        return [QueueStats(name, now, later, runs, _seconds(waited)) for name, now, later, runs, waited in rows]


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1e6


def _new(job: NewJob) -> dict[str, Any]:
    later: Any = None if job.delay is None else NOW + _micros(job.delay)
    if job.execute_at is not None:
        later = (job.execute_at - _EPOCH) // timedelta(microseconds=1)
    due = NOW if later is None else sa.func.max(NOW, later)
    times = {"execute_at": later, "due_at": due, "created_at": NOW, "updated_at": NOW}
    return {**{name: getattr(job, name) for name in _AS_GIVEN}, **times, "held_key": job.unique_key}


def _of(claim: Claim) -> Any:
    return (JOBS.c.id == claim.id) & (JOBS.c.claim == claim.claim)


def _after(event: Event) -> dict[str, Any]:
    """Return what a running job's row becomes with an event: as `TRANSITIONS` has it, and held by nobody."""
    status = transition("running", event)
    failed = event in {"retry", "fail"}
    return {**(_WAITS if status == "pending" else _ENDED), "status": status, "attempts": JOBS.c.attempts + failed}


def _claim(row: Any, number: str, now: int) -> Claim:
    fixed = (row.type, row.data, row.queue, row.priority, row.max_retries, row.timeout, row.unique_key is not None)
    times = (row.created_at / 1e6, _seconds(row.execute_at), now / 1e6)
    return Claim(row.id, number, row.attempts, *fixed, *times, row.suspect)


def _job(row: sa.RowMapping) -> Job:
    values: dict[str, Any] = {**row}
    if values["status"] == "pending" and values["due_at"] > values["updated_at"]:  # it waits for its time
        values["execute_at"] = values["due_at"]
    for name in _TIMES:
        if values[name] is not None:
            values[name] = _EPOCH + timedelta(microseconds=values[name])
    return job_from_row({**values, "result": json.loads(values["result"] or "null")})
