"""What a job may cost the database, without a clock: WAL bytes, statements, transactions, round trips, dead rows.

The figures repeat to the byte on PostgreSQL 15, 16 and 18; the limits stand a few per cent above them. Pages per claim:
test_plans.py.
"""

from __future__ import annotations

import asyncio
import base64
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.storage.values import Outcome
from tests.storage.workers import ended, exchange, worker
from tests.support.meter import Cost, Meter, each, metered

JOBS = 2000


@pytest.fixture(scope="module")
def meter() -> Iterator[Meter]:
    with metered() as meter:
        yield meter


async def drain(storage: PostgresStorage, jobs: int) -> None:
    """Claim and complete so many jobs in batches of 500, as a worker under load does."""
    async with worker(storage) as session:
        outcomes: list[Outcome] = []
        while jobs or outcomes:
            claims = (await exchange(session, outcomes, 500 if jobs else 0)).claims
            outcomes = [ended(claim) for claim in claims]
            jobs -= len(claims)


def enqueue_one_by_one(meter: Meter) -> Cost:
    with meter.measured() as cost, PostgresStorage(meter.dsn) as storage:
        queue = JobQueue(storage)
        for data in each(JOBS):
            queue.enqueue("f", **data)
    return cost[0]


def enqueue_many(meter: Meter) -> Cost:
    with meter.measured() as cost, PostgresStorage(meter.dsn) as storage:
        JobQueue(storage).enqueue_many("f", each(JOBS))
    return cost[0]


def claim_and_complete(meter: Meter, jobs: int = JOBS) -> Cost:
    with meter.measured() as cost, PostgresStorage(meter.dsn) as storage:
        asyncio.run(drain(storage, jobs))
    return cost[0]


def test_wal_of_a_job_that_is_enqueued_with_others(meter: Meter) -> None:
    enqueued = enqueue_many(meter).wal / JOBS
    worked = claim_and_complete(meter).wal / JOBS
    assert enqueued < 430  # 422
    assert worked < 550  # 530
    assert enqueued + worked <= 1000


def test_wal_of_a_job_where_changes_are_decoded() -> None:
    """Rows of `ready` are logged whole then, for want of a key; with `wal_level = replica` that costs no byte."""
    with metered(wal_level="logical") as meter:
        enqueued = enqueue_many(meter).wal / JOBS
        worked = claim_and_complete(meter).wal / JOBS
    assert enqueued < 430  # 422, as above
    assert worked < 625  # 603; 555 if a claim could not name its row


def test_wal_of_a_job_that_is_enqueued_alone(meter: Meter) -> None:
    enqueued = enqueue_one_by_one(meter).wal / JOBS
    worked = claim_and_complete(meter).wal / JOBS
    assert enqueued < 530  # 513: a commit, and the heads of records that COPY writes once for many rows
    assert worked < 550  # 532


def test_wal_of_a_job_with_8_kb_that_do_not_compress(meter: Meter) -> None:
    chance = random.Random(1)
    texts = [base64.b64encode(chance.randbytes(6144)).decode() for _ in range(500)]
    with meter.measured() as cost, PostgresStorage(meter.dsn) as storage:
        JobQueue(storage).enqueue_many("f", ({"text": text} for text in texts))
        asyncio.run(drain(storage, len(texts)))
    assert cost[0].wal / len(texts) < 8192 + 1700  # 1,579: TOAST takes 800 of them; the body is written once


def test_an_enqueue_is_one_statement_one_transaction_and_one_round_trip(meter: Meter, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with PostgresStorage(meter.dsn, max_size=1) as storage:
        queue = JobQueue(storage)
        for data in each(10):  # the queue is known, the connection made, the statement prepared
            queue.enqueue("f", **data)
        before = len(meter.statements())
        with trace.open("wb") as file:
            with storage.connections.connection() as connection:
                connection.pgconn.trace(file.fileno())
            for data in each(100):
                queue.enqueue("f", **data)
            with storage.connections.connection() as connection:
                connection.pgconn.untrace()
        said = meter.statements()[before:]
    assert len(said) == 100
    assert set(said) == {"with served as materialized ("}
    messages = [line.split("\t")[1:4] for line in trace.read_text().splitlines()]
    assert sum(kind == "Sync" for _, _, kind in messages) == 100
    assert {kind for way, _, kind in messages if way == "B"} <= {
        "BindComplete",
        "RowDescription",
        "NoData",
        "DataRow",
        "CommandComplete",
        "ReadyForQuery",
    }
    claim_and_complete(meter, 110)


def test_transactions_of_enqueues(meter: Meter) -> None:
    cost = enqueue_one_by_one(meter)
    assert JOBS <= cost.transactions <= JOBS + 10  # connecting; the queue's number
    assert JOBS <= cost.statements <= JOBS + 10
    claim_and_complete(meter)
    cost = enqueue_many(meter)
    assert cost.transactions <= 10
    assert cost.statements <= 15
    claim_and_complete(meter)


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_statements_and_transactions_of_a_worker_under_load(meter: Meter, kind: str) -> None:
    jobs, left, done = 5000, [5000], threading.Event()

    @job(name="budget.async")
    async def on_the_loop(number: int, padding: str) -> None:
        on_a_thread(number, padding)

    @job(name="budget.def")
    def on_a_thread(number: int, padding: str) -> None:
        left[0] -= 1
        if not left[0]:
            done.set()

    with PostgresStorage(meter.dsn) as storage:
        JobQueue(storage).enqueue_many(on_the_loop if kind == "async def" else on_a_thread, each(jobs))
    with meter.measured() as cost, PostgresStorage(meter.dsn) as storage, Worker(JobQueue(storage), concurrency=100):
        assert done.wait(60)
    assert cost[0].statements <= jobs * 0.2  # 0.016: a few hundred jobs share an exchange of three
    assert cost[0].transactions <= jobs * 0.1  # 0.009


def test_a_job_leaves_one_dead_row_where_it_waited_one_where_it_ran_and_no_other(meter: Meter) -> None:
    before = meter.rows()
    enqueue_many(meter)
    claim_and_complete(meter)
    after = meter.rows()
    changes = {
        table: [b - a for a, b in zip(before[table], after[table], strict=True)]
        for table in after
        if table not in {"worker", "queue"}
    }
    kept, moved, untouched = [JOBS, 0, 0, 0], [JOBS, 0, JOBS, JOBS], [0, 0, 0, 0]
    assert changes == {
        "job": kept,
        "ready": moved,
        "lease": moved,
        "done": kept,
        "scheduled": untouched,
        "failure": untouched,
        "unique_key": untouched,
        "schema_version": untouched,
    }
    assert after["queue"].updated - before["queue"].updated <= 2  # is anybody asleep
    assert after["worker"].updated - before["worker"].updated <= 10  # beats, here one with each claim


def test_a_retry_leaves_one_more_dead_row_in_each_place(meter: Meter) -> None:
    async def fail_once(storage: PostgresStorage) -> None:
        async with worker(storage) as session:
            claims = (await exchange(session, want=100)).claims
            await exchange(session, [ended(claim, "retry", delay=0.0) for claim in claims])
            claims = (await exchange(session, want=100, promote=True)).claims
            await exchange(session, [ended(claim) for claim in claims])

    before = meter.rows()
    with PostgresStorage(meter.dsn) as storage:
        JobQueue(storage).enqueue_many("f", each(100))
        asyncio.run(fail_once(storage))
    after = meter.rows()
    dead = {table: after[table].dead - before[table].dead for table in ("job", "ready", "scheduled", "lease", "done")}
    assert dead == {"job": 0, "ready": 200, "scheduled": 100, "lease": 200, "done": 0}
    assert after["failure"].inserted - before["failure"].inserted == 100
