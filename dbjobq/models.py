"""`Job` and its life cycle as a table. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Literal, Self, TypeAlias, get_args

__all__ = ["CODES", "STATUSES", "TRANSITIONS", "Event", "Job", "Status", "after_failure"]

Status: TypeAlias = Literal["pending", "running", "completed", "failed", "cancelled"]
Event: TypeAlias = Literal["claim", "complete", "retry", "fail", "release", "unknown", "cancel", "revive"]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)

TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = {
    ("pending", "claim"): "running",
    ("running", "complete"): "completed",
    ("running", "retry"): "pending",  # raised, or its lease ran out; attempts left
    ("running", "fail"): "failed",  # the same with none left: a dead letter
    ("running", "release"): "pending",  # handed back unstarted, or by a stopping worker: costs no attempt
    ("running", "unknown"): "pending",  # no worker knows its type yet: put off, which uses up no attempt
    ("pending", "cancel"): "cancelled",
    ("running", "cancel"): "cancelled",
    ("failed", "revive"): "pending",  # `retry(job_id)`: attempts from 0
    ("cancelled", "revive"): "pending",
}

CODES: Final[Mapping[Event, int]] = {"complete": 2, "fail": 3, "cancel": 4, "retry": 5, "release": 6, "unknown": 7}
"""How the tables, and what is sent to them, number these events; those that end a job also as its status in `done`."""


def after_failure(attempts: int, max_retries: int) -> Literal["retry", "fail"]:
    """Decide what follows a failed attempt.

    Args:
        attempts: Attempts that had failed before this one.
        max_retries: How many retries the job has; it starts at most `max_retries + 1` times.
    """
    return "retry" if attempts < max_retries else "fail"


@dataclass
class Job:
    """A job as the database has it. Times are aware, UTC, and the database's."""

    id: str
    """UUIDv7 as text, which sorts by creation."""
    type: str
    """The registered name of the function."""
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    """The function's keyword arguments."""
    status: str = "pending"
    queue: str = "default"
    priority: int = 5
    """Jobs of a higher priority run first; of equal ones, those that became due, and were enqueued, first."""
    attempts: int = 0
    """Attempts that have ended in failure, so the one that runs is `attempts + 1`."""
    max_retries: int = 3
    execute_at: datetime | None = None
    """The job starts not before this time. While a retry waits, the time at which it is due."""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    """The last failure: `Type: message` and the traceback."""
    result: Any = None
    """The function's result, as JSON has it."""
    worker_id: str | None = None
    """The worker that holds the job, or held it last."""

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Self:
        """Make a job from a mapping such as `dataclasses.asdict(job)`; missing fields get their defaults.

        Args:
            mapping: At least `id` and `type`. `data` may be a dict or JSON text. Other keys are passed over.

        Raises:
            ValueError: `id` or `type` is missing, or `data` is not a JSON object.
        """
        if missing := {"id", "type"} - mapping.keys():
            raise ValueError(f"a job needs {' and '.join(sorted(missing))}: got only {sorted(mapping)}")
        known = {f.name: mapping[f.name] for f in fields(cls) if f.name in mapping}
        if isinstance(data := known.get("data"), str | bytes | bytearray):
            known["data"] = json.loads(data)
        if not isinstance(known.get("data", {}), dict):  # JSON text of another kind is a wrong value, not a wrong type
            said = f"data={known['data']!r}: must be a JSON object, the function's keyword arguments"
            raise ValueError(said)  # noqa: TRY004
        return cls(**known)
