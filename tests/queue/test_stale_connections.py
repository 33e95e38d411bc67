"""Pooled connections that died while nobody used them: the call is made on a fresh one, and nothing happens twice."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import JobQueue, PostgresStorage, job

TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"


@job(name="stale.anything")
def anything(number: int) -> None: ...


@pytest.fixture
def stale(dsn: str, storage: PostgresStorage) -> JobQueue:
    """A queue whose pool's connections are all gone."""
    queue = JobQueue(storage)
    queue.enqueue(anything, number=0)
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(TERMINATE, (conninfo_to_dict(dsn)["dbname"],))
    return queue


def test_an_enqueue_happens_once(stale: JobQueue) -> None:
    stale.enqueue(anything, number=1)
    assert stale.count() == 2


def test_enqueue_many_reads_its_jobs_once(stale: JobQueue) -> None:
    assert len(stale.enqueue_many(anything, ({"number": n} for n in range(3)))) == 3
    assert stale.count() == 4


def test_dequeue_claims(stale: JobQueue) -> None:
    assert stale.dequeue() is not None
    assert stale.count("running") == 1


def test_looking_works(stale: JobQueue) -> None:
    assert len(stale.list_jobs()) == 1
