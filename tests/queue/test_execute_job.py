"""`execute_job` at its limits: timeouts, cancellation, transactions that do not commit, leases that are lost."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import psycopg
import pytest

from dbjobq import AsyncJobQueue, Job, JobContext, JobQueue, LeaseLost, PostgresStorage, job
from tests.storage.database import Database

NOWHERE = "01a20a8f-9c22-76e4-9219-c1f8944f2bb3"


@job(name="by_hand.forever", timeout=0.05)
async def forever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


@job(name="by_hand.forever_in_transaction", transactional=True)
async def forever_in_transaction(ctx: JobContext) -> None:
    await ctx.connection.execute("insert into note values ('forever')")
    await asyncio.get_running_loop().create_future()


@job(name="by_hand.gives_up")
async def gives_up() -> NoReturn:
    raise asyncio.CancelledError("my own")


@job(name="by_hand.commits_in_vain", transactional=True)
def commits_in_vain(ctx: JobContext) -> None:
    ctx.connection.execute("insert into note values ('once'), ('once')")


@job(name="by_hand.acommits_in_vain", transactional=True)
async def acommits_in_vain(ctx: JobContext) -> None:
    await ctx.connection.execute("insert into note values ('once'), ('once')")


@pytest.fixture(autouse=True)
def _notes(database: Database) -> None:
    database.rows("create table note (text text unique deferrable initially deferred)")


def executed(queue: JobQueue) -> Job:
    job = queue.dequeue()
    assert job is not None
    queue.execute_job(job)
    found = queue.get_job(job.id)
    assert found is not None
    return found


def test_an_async_job_is_cancelled_when_its_timeout_is_over(queue: JobQueue) -> None:
    queue.enqueue(forever)
    job = executed(queue)
    assert (job.status, job.attempts) == ("pending", 1)
    assert job.error is not None
    assert job.error.startswith("TimeoutError: the attempt took longer than its timeout of 0.05 s")


def test_a_calls_own_timeout_comes_first_and_ends_a_transaction_too(queue: JobQueue, database: Database) -> None:
    queue.options(timeout=0.2, max_retries=0).enqueue(forever_in_transaction)
    job = executed(queue)
    assert job.status == "failed"
    assert "its timeout of 0.2 s" in (job.error or "")
    assert database.rows("select * from note") == []


def test_a_cancellation_of_the_jobs_own_is_its_failure(queue: JobQueue) -> None:
    queue.options(max_retries=0).enqueue(gives_up)
    job = executed(queue)
    assert (job.status, (job.error or "").partition("\n")[0]) == ("failed", "CancelledError: my own")


def test_cancelling_who_runs_it_is_not_the_jobs_failure(storage: PostgresStorage) -> None:
    async def main() -> None:
        async with AsyncJobQueue(storage) as queue:
            await queue.options(timeout=100).enqueue(forever)
            job = await queue.dequeue()
            assert job is not None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await queue.execute_job(job)
            assert await queue.count("running") == 1

    asyncio.run(main())


@pytest.mark.parametrize("name", ["by_hand.commits_in_vain", "by_hand.acommits_in_vain"])
def test_a_transaction_that_cannot_commit_is_the_jobs_failure(queue: JobQueue, database: Database, name: str) -> None:
    queue.enqueue(name)
    job = executed(queue)
    assert (job.status, job.attempts) == ("pending", 1)
    assert job.error is not None
    assert job.error.startswith("UniqueViolation")
    assert database.rows("select * from note") == []


def test_a_lost_lease_says_what_would_help(queue: JobQueue) -> None:
    queue.enqueue(forever)
    job = queue.dequeue()
    assert job is not None
    queue.cancel(job.id)
    with pytest.raises(LeaseLost, match="ask for a longer lease"):
        queue.complete(job)
    with pytest.raises(LeaseLost, match="Give the Job that `dequeue` returned") as caught:
        queue.complete(NOWHERE)
    assert "longer lease" not in str(caught.value)


@pytest.mark.parametrize("unknown", ["zz", NOWHERE])
def test_looking_at_an_unknown_job_finds_nothing(queue: JobQueue, unknown: str) -> None:
    assert queue.get_job(unknown) is None
    assert queue.get_progress(unknown) is None


def test_the_traceback_begins_with_the_jobs_own_frame(queue: JobQueue) -> None:
    queue.options(max_retries=0).enqueue(gives_up)
    lines = (executed(queue).error or "").splitlines()
    at = lines.index("Traceback (most recent call last):")
    assert "in gives_up" in lines[at + 1]


def test_a_deadline_of_psycopgs_is_the_jobs_failure_in_its_transaction(queue: JobQueue) -> None:
    @job(name="by_hand.cancelled", transactional=True, max_retries=0)
    def cancelled(ctx: JobContext) -> None:
        ctx.connection.execute("set local statement_timeout = '20ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            ctx.connection.execute("select pg_sleep(10)")
        ctx.connection.execute("select 1")

    queue.enqueue(cancelled)
    found = executed(queue)
    assert found.status == "failed"
    assert (found.error or "").startswith("InFailedSqlTransaction")
