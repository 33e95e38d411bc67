"""What the tables say in the end, and the workers' logs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.ledger import whole_lines

__all__ = ["Done", "Failure", "JobRow", "Refusal", "Tables", "read_log", "read_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job's body."""

    type: str
    tag: str
    max_retries: int
    key: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How it ended; times in seconds since 1970."""

    status: int
    attempts: int
    worker: str | None
    result: Any = None
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that was charged."""

    job: str
    attempts: int
    error: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A result that a worker was told had come too late."""

    job: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All of it, at one moment."""

    jobs: Mapping[str, JobRow]
    places: Mapping[str, tuple[str, ...]]
    """The tables of state in which a job is."""
    done: Mapping[str, Done]
    failures: tuple[Failure, ...] = ()
    effects: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """What transactional jobs have written: which runs, for each job."""
    notes: frozenset[str] = frozenset()
    """What callers' own transactions have written."""


def read_tables(dsn: str) -> Tables:
    """Read them, from one snapshot."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

        def rows(statement: bytes) -> list[tuple[Any, ...]]:
            return connection.execute(statement).fetchall()

        return Tables(
            jobs={
                i: JobRow(type=type_, tag=tag, max_retries=retries, key=key, created_at=created)
                for i, type_, tag, retries, key, created in rows(
                    b"select id::text, type, data->>'tag', max_retries, unique_key,"
                    b" date_part('epoch', created_at) from dbjobq.job"
                )
            },
            places=_grouped(
                rows(
                    b"select job_id::text, 'ready' from dbjobq.ready"
                    b" union all select job_id::text, 'scheduled' from dbjobq.scheduled"
                    b" union all select job_id::text, 'lease' from dbjobq.lease"
                    b" union all select job_id::text, 'done' from dbjobq.done"
                )
            ),
            done={
                i: Done(status=status, attempts=attempts, worker=worker, result=result, finished_at=finished)
                for i, status, attempts, worker, result, finished in rows(
                    b"select job_id::text, status, attempts, worker.name, result, date_part('epoch', finished_at)"
                    b" from dbjobq.done left join dbjobq.worker on worker.id = done.worker"
                )
            },
            failures=tuple(
                Failure(job=i, attempts=attempts, error=error, at=at)
                for i, attempts, error, at in rows(
                    b"select job_id::text, attempts, error, date_part('epoch', at) from dbjobq.failure order by at"
                )
            ),
            effects=_grouped(rows(b"select job_id::text, run from chaos.effect")),
            notes=frozenset(tag for (tag,) in rows(b"select tag from chaos.note")),
        )


def _grouped(pairs: Iterable[tuple[Any, ...]]) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        grouped[key] = (*grouped.get(key, ()), value)
    return grouped


def read_log(pid: int, path: Path) -> Iterator[Refusal]:
    """Yield the results that a worker was refused, from its log."""
    for line in whole_lines(path):
        if '"event": "job.refused"' in line:
            yield Refusal(job=json.loads(line)["job_id"], pid=pid)
