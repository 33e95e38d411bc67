"""Jobs on SQLite, by SQLAlchemy Core: one wide table, a row a job, and its moves (docs/decisions/0007).

Times are seconds since 1970, by the database's clock. The order of jobs is that of PostgresStorage: priority, then when
due, then when enqueued. A running job has its own lease, which is renewed with those of all jobs that its worker has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from dbjobq.errors import JobNotFound
from dbjobq.models import STATUSES, TRANSITIONS, Event, Job, Status, after_failure
from dbjobq.storage.sqlite.engine import WAKES_WORKERS
from dbjobq.storage.values import (
    UNIQUE,
    Bounds,
    Claim,
    Listing,
    NewJob,
    Outcome,
    QueueStats,
    Rescued,
    job_from_row,
    known_form,
)

__all__ = [
    "JOBS",
    "NOW",
    "OVER",
    "RUNNING",
    "SCHEDULED",
    "add",
    "cancelled_of",
    "claim",
    "finish",
    "found",
    "ids",
    "looked",
    "move",
    "move_by_hand",
    "of_claim",
    "queue_stats",
    "release",
    "rescue",
    "served_by",
    "stats",
    "status_of",
]

R = TypeVar("R")

NOW: Final[Any] = sa.literal_column("round((julianday('now') - 2440587.5) * 86400, 3)", sa.Float)
JOBS: Final = sa.Table(
    "dbjobq_jobs",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),  # the order in which they were enqueued
    sa.Column("id", sa.Text, nullable=False, unique=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("type", "data", "queue", "status")),
    *(sa.Column(name, sa.Integer, nullable=False) for name in ("priority", "max_retries", "attempts")),
    # `due_at` is a job's place in the order, while it waits; `expires_at` is the end of its lease.
    *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "updated_at", "due_at")),
    *(sa.Column(name, sa.Float) for name in ("timeout", "execute_at", "started_at", "finished_at", "expires_at")),
    # `claim` is the fence; once the job has moved on, the claim whose result was written.
    *(sa.Column(name, sa.Text) for name in ("unique_key", "worker_id", "claim", "error", "result", "progress")),
    sa.Column("held_key", sa.Text, unique=True),  # the unique key, while it is this job's
    sa.Column("worker", sa.Text, index=True),  # whose heartbeat renews the lease
    sa.Column("suspect", sa.Boolean, nullable=False),  # a worker died with it: perhaps of it
    sa.Column("unknown_since", sa.Float),  # no worker knew its type, from then on
    sa.Index("dbjobq_jobs_claim", "status", sa.text("priority desc"), "due_at"),
)

RUNNING: Final = JOBS.c.status == "running"
OVER: Final = RUNNING & (JOBS.c.expires_at < NOW)
READY: Final = (JOBS.c.status == "pending") & (JOBS.c.due_at <= NOW)
SCHEDULED: Final = (JOBS.c.status == "pending") & (JOBS.c.due_at > NOW)
_LOST: Final = "WorkerLost: worker {} stopped renewing its lease while it held this job (killed, cut off or paused)"
_KEY_IF_FREE: Final = sa.case((~sa.exists().where(JOBS.alias().c.held_key == JOBS.c.unique_key), JOBS.c.unique_key))

_DUE: Final = sa.func.min(NOW, sa.func.max(JOBS.c.created_at, sa.func.coalesce(JOBS.c.execute_at, 0)))
_NEW: Final = {"status": "pending", "attempts": 0, "suspect": False, "created_at": NOW, "updated_at": NOW}
_LEFT: Final[Mapping[str, Any]] = {"updated_at": NOW, "progress": None, "worker": None, "expires_at": None}
_WAITS: Final[Mapping[str, Any]] = {"started_at": None, "finished_at": None, "worker_id": None}
_ENDS: Final[Mapping[str, Any]] = {"finished_at": NOW, "held_key": None, "unknown_since": None}
_MOVES: Final[dict[Event, Mapping[str, Any]]] = {
    "claim": {"started_at": NOW},
    "complete": _ENDS,
    "retry": {**_WAITS, "attempts": JOBS.c.attempts + 1, "unknown_since": None},
    "unknown": {**_WAITS, "claim": None, "unknown_since": sa.func.coalesce(JOBS.c.unknown_since, NOW)},
    "fail": {**_ENDS, "attempts": JOBS.c.attempts + 1},
    # A released job goes back to its old place, and its claim counts no more.
    "release": {**_WAITS, "claim": None, "due_at": _DUE, "suspect": JOBS.c.suspect},
    "cancel": {**_ENDS, "claim": None},
    "revive": {**_WAITS, "attempts": 0, "suspect": False, "held_key": _KEY_IF_FREE},
}


def move(db: sa.Connection, event: Event, *which: Any, **values: Any) -> Sequence[str]:
    """Move those of the jobs for which `TRANSITIONS` has this event, and return their ids.

    `values` are further columns to set, beyond those that `_MOVES` has for the event.
    """
    ends = {before: after for (before, moved), after in TRANSITIONS.items() if moved == event}
    (status,) = set(ends.values())
    changed = {**_LEFT, **values, **_MOVES[event], "status": status}
    # `likely` makes SQLite find the rows by `which`, not by going through all rows of that status.
    moved = sa.update(JOBS).where(*which, sa.func.likely(JOBS.c.status.in_(ends))).values(changed)
    ids = db.scalars(moved.returning(JOBS.c.id)).all()
    if ids and status == "pending":
        db.info[WAKES_WORKERS] = True
    return ids


def move_by_hand(db: sa.Connection, event: Event, job_id: str, **values: Any) -> bool:
    """Move one job; False in a status that the event does not leave. Raises JobNotFound."""
    moved = move(db, event, JOBS.c.id == known_form(job_id), **values)
    if not moved and not found(db, id=known_form(job_id)):
        raise JobNotFound(job_id)
    return bool(moved)


def add(db: sa.Connection, like: NewJob, data: Mapping[str, str]) -> Sequence[str]:
    """Write jobs, given the data of each by its id; return the ids that are there now, perhaps from before."""
    row = {name: getattr(like, name) for name in ("type", "queue", "priority", "max_retries", "timeout", "unique_key")}
    at = like.execute_at.timestamp() if like.execute_at else like.delay and NOW + like.delay
    row |= {"execute_at": at, "due_at": sa.func.max(NOW, sa.func.coalesce(at, 0)), "held_key": like.unique_key}
    db.info[WAKES_WORKERS] = True
    repeats = None if like.own_id else [JOBS.c.held_key]  # an id made here that is there already would be an error
    new = insert(JOBS).values({**_NEW, **row}).on_conflict_do_update(repeats, set_={"id": JOBS.c.id})
    return (
        db.scalars(new.returning(JOBS.c.id), [{"id": i, "data": text} for i, text in data.items()]).all()
        if data
        else []
    )


def claim(db: sa.Connection, want: int, queues: Sequence[str] | None, **holder: Any) -> list[Claim]:
    """Pending → running, for at most `want` due jobs, the queues in the order given, for `holder`."""
    first = [(JOBS.c.queue == name).desc() for name in (queues or ())[:-1]]
    order = (*first, JOBS.c.priority.desc(), JOBS.c.due_at, JOBS.c.number)
    due = sa.select(JOBS.c.number).where(READY, served_by(queues)).order_by(*order).limit(want)
    fence = secrets.token_hex(8)
    move(db, "claim", JOBS.c.number.in_(due), claim=fence, **holder)
    fields = (
        JOBS,
        sa.case((JOBS.c.unique_key.is_not(None), UNIQUE), else_=0).label("ties"),
        JOBS.c.started_at.label("claimed_at"),
    )
    claimed = db.execute(sa.select(*fields).where(RUNNING, JOBS.c.claim == fence).order_by(*order)).mappings()
    return [Claim(**{name: row[name] for name in Claim._fields}) for row in claimed]


def finish(db: sa.Connection, outcomes: Sequence[Outcome]) -> set[str]:
    """Write how attempts ended, each if its claim still holds the job; return the ids of the accepted ones."""

    def written(it: Outcome) -> bool:
        values = {"result": it.result, "error": sa.func.coalesce(it.error, JOBS.c.error), "suspect": False}
        event, delay = (it.event, it.delay) if it.event != "unknown" else _again(db, it)
        return bool(move(db, event, of_claim(it.claim), due_at=NOW + delay, **values))

    return {outcome.claim.id for outcome in outcomes if written(outcome)}


def _again(db: sa.Connection, it: Outcome) -> tuple[Event, float]:
    """Decide how long a job of unknown type waits, or that it fails since it has waited long enough; see finish.sql."""
    lasted = db.scalar(sa.select(NOW - sa.func.coalesce(JOBS.c.unknown_since, NOW)).where(of_claim(it.claim))) or 0.0
    return (
        ("fail", 0.0) if lasted >= it.delay else ("unknown", min(max(lasted, 1.0), max(it.delay - lasted, 0.05), 60.0))
    )


def rescue(db: sa.Connection) -> list[Rescued]:
    """Running → pending, or failed without a retry left, for jobs whose lease is over; some hundreds at a time."""
    lost = db.execute(sa.select(JOBS).where(OVER).limit(500)).all()
    for row in lost:
        error = f"{_LOST.format(row.worker_id)}; this was attempt {row.attempts + 1} of {row.max_retries + 1}"
        back = {"error": error, "due_at": _DUE, "claim": None, "suspect": True, "worker": row.worker}
        # `worker` stays until the next claim, so that the old worker's heartbeat learns of the loss.
        move(db, after_failure(row.attempts, row.max_retries), JOBS.c.number == row.number, **back)
    return [Rescued(row.id, row.type, row.queue, row.attempts, row.attempts >= row.max_retries) for row in lost]


def release(db: sa.Connection, worker: str, keep: Iterable[Claim]) -> Sequence[str]:
    """Running → pending, for the jobs that a worker holds beyond `keep`."""
    kept = sa.tuple_(JOBS.c.id, JOBS.c.claim).in_([(claim.id, claim.claim) for claim in keep])
    return move(db, "release", JOBS.c.worker == worker, ~kept)


def found(db: sa.Connection, limit: int | None = None, **wanted: Any) -> list[Job]:
    """Return jobs, newest first; `wanted` has the values of columns to look for, None for any."""
    return _read(db, JOBS.c, _which(wanted), limit)


def _which(wanted: Mapping[str, Any]) -> list[Any]:
    return [JOBS.c[name] == value for name, value in wanted.items() if value is not None]


def _read(db: sa.Connection, columns: Iterable[Any], which: Iterable[Any], limit: int | None) -> list[Job]:
    chosen = sa.select(*columns, SCHEDULED.label("waits")).where(*which).order_by(JOBS.c.number.desc()).limit(limit)
    rows = db.execute(chosen).mappings()
    return [job_from_row({**row, "execute_at": row["due_at" if row["waits"] else "execute_at"]}) for row in rows]


def looked(db: sa.Connection, limit: int, bounds: Bounds, **wanted: Any) -> Listing:
    """Return jobs, searched among the newest ones as far as the bounds allow."""
    oldest = sa.select(JOBS.c.number).order_by(JOBS.c.number.desc()).offset(bounds.jobs - 1).limit(1)
    first = db.scalar(oldest)
    which = [*_which(wanted), *([] if first is None else [JOBS.c.number >= first])]
    older = first is not None and db.scalar(sa.select(sa.exists().where(JOBS.c.number < first)))
    chosen, columns = _ids(db, which, limit), list[Any](JOBS.c)
    sizes = sa.func.length(JOBS.c.data) + sa.func.length(sa.func.coalesce(JOBS.c.result, ""))
    if bounds.size_bytes is None:
        bodies = {"data": sa.literal("{}"), "result": sa.null(), "error": sa.func.substr(JOBS.c.error, 1, 500)}
        columns = [bodies[column.name].label(column.name) if column.name in bodies else column for column in JOBS.c]
    else:
        before = sa.func.sum(sizes).over(order_by=JOBS.c.number.desc()) - sizes
        sized = sa.select(JOBS.c.number, before.label("before")).where(*which).subquery()
        fits = sa.select(sized.c.number).where(sized.c.before < bounds.size_bytes)
        which.append(JOBS.c.number.in_(fits))
    jobs = _read(db, columns, which, limit)
    return Listing(jobs, unsearched=bool(older) and len(chosen) < limit, cut=len(jobs) < len(chosen))


def ids(db: sa.Connection, **wanted: Any) -> list[str]:
    """Return the ids of jobs, newest first."""
    return _ids(db, _which(wanted), None)


def _ids(db: sa.Connection, which: Iterable[Any], limit: int | None) -> list[str]:
    chosen = sa.select(JOBS.c.id).where(*which).order_by(JOBS.c.number.desc()).limit(limit)
    return list(db.scalars(chosen))


def stats(db: sa.Connection) -> dict[Status, int]:
    """Count jobs by status."""
    counts = sa.select(JOBS.c.status, sa.func.count()).group_by(JOBS.c.status)
    return dict.fromkeys(STATUSES, 0) | {row[0]: row[1] for row in db.execute(counts)}


def queue_stats(db: sa.Connection) -> list[QueueStats]:
    """Count the jobs that wait and run in each queue that has jobs."""
    counts = [sa.func.count().filter(which) for which in (READY, SCHEDULED, RUNNING)]
    oldest = NOW - sa.func.min(JOBS.c.due_at).filter(READY)
    queues = sa.select(JOBS.c.queue, *counts, oldest).group_by(JOBS.c.queue).order_by(JOBS.c.queue)
    return [QueueStats(*row) for row in db.execute(queues)]


def of_claim(claim: Claim) -> Any:
    """Return the condition for the job of a claim, while that is the last one."""
    return (JOBS.c.id == claim.id) & (JOBS.c.claim == claim.claim)


def served_by(queues: Sequence[str] | None) -> Any:
    """Return the condition for jobs of these queues; None for all."""
    return sa.true() if queues is None else JOBS.c.queue.in_(queues)


def status_of(db: sa.Connection, claim: Claim) -> str | None:
    """Return the status of a claim's job if the claim holds it, or was the last to hold it and wrote its result."""
    return db.scalar(sa.select(JOBS.c.status).where(of_claim(claim)))


def cancelled_of(db: sa.Connection, claims: Sequence[Claim]) -> set[str]:
    """Return the ids of those of these jobs that are cancelled."""
    of_these = JOBS.c.id.in_([claim.id for claim in claims])
    return set(db.scalars(sa.select(JOBS.c.id).where(of_these, JOBS.c.status == "cancelled"))) if claims else set()
