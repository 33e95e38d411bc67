"""Transactional jobs: the function's own writes and the job's completion commit together, or not at all."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dbjobq import JobContext, JobQueue, PostgresStorage, job
from tests.storage.database import Database
from tests.support.waiting import ended, heard, lasting, until
from tests.worker.conftest import LASTING, Events, Start

KINDS = pytest.mark.parametrize("kind", ["def", "async"])


@pytest.fixture(autouse=True)
def effect(database: Database) -> None:
    database.rows("create table effect (job uuid, attempt int)")


def effects(database: Database) -> list[tuple[str, int]]:
    return [(str(i), n) for i, n in database.rows("select job, attempt from effect")]


INSERT = "insert into effect values (%s, %s)"


@KINDS
def test_the_effect_and_the_completion_commit_together(
    start: Start, queue: JobQueue, database: Database, kind: str, loop: str
) -> None:
    @job(transactional=True)
    def write(ctx: JobContext) -> str:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        return "written"

    @job(transactional=True)
    async def awrite(ctx: JobContext) -> str:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        return "written"

    function = write if kind == "def" else awrite
    start(concurrency=3)
    ids = [queue.enqueue(function) for _ in range(20)]
    ended(queue, ids)
    assert sorted(effects(database)) == sorted((i, 0) for i in ids)
    assert {j.result for j in queue.get_completed_jobs()} == {"written"}
    same = "select count(*) from effect join dbjobq.done on job_id = job where effect.xmin = done.xmin"
    assert database.value(same) == 20


@KINDS
def test_an_effect_of_an_attempt_that_raises_is_rolled_back(
    start: Start, queue: JobQueue, database: Database, kind: str
) -> None:
    @job(transactional=True, retry=0.05)
    def write(ctx: JobContext) -> None:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts < 2:
            raise ValueError

    @job(transactional=True, retry=0.05)
    async def awrite(ctx: JobContext) -> None:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts < 2:
            raise ValueError

    start()
    job_id = queue.enqueue(write if kind == "def" else awrite)
    ended(queue, [job_id])
    assert effects(database) == [(job_id, 2)]


@KINDS
def test_an_effect_of_a_job_that_is_cancelled_meanwhile_is_rolled_back(
    start: Start, queue: JobQueue, database: Database, events: Events, kind: str
) -> None:
    began, go_on, over = threading.Event(), threading.Event(), threading.Event()

    @job(transactional=True)
    def write(ctx: JobContext) -> None:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        began.set()
        go_on.wait(LASTING)
        over.set()

    @job(transactional=True)
    async def awrite(ctx: JobContext) -> None:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        began.set()
        try:
            await heard(go_on)
        finally:
            over.set()

    @job(transactional=True)
    def next_one(ctx: JobContext) -> None: ...

    start()
    job_id = queue.enqueue(write if kind == "def" else awrite)
    assert began.wait(60)
    assert queue.cancel(job_id)
    go_on.set()
    assert over.wait(60)
    ended(queue, [queue.enqueue(next_one)])
    idle = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%%'"
    until(lambda: database.value(idle) == 0)
    assert effects(database) == []
    found = queue.get_job(job_id)
    assert found is not None
    assert found.status == "cancelled"
    until(lambda: events.jobs("job.cancelled") + events.jobs("job.refused"))
    assert events.loud() == []


@KINDS
def test_an_effect_of_a_job_that_overruns_its_timeout_is_rolled_back(
    start: Start, queue: JobQueue, database: Database, kind: str
) -> None:
    over = threading.Event()

    @job(transactional=True, timeout=0.2, max_retries=0)
    def write(ctx: JobContext) -> None:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        time.sleep(0.5)
        over.set()

    @job(transactional=True, timeout=0.2, max_retries=0)
    async def awrite(ctx: JobContext) -> None:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        try:
            await asyncio.sleep(0.5)
        finally:
            over.set()

    start()
    job_id = queue.enqueue(write if kind == "def" else awrite)
    ended(queue, [job_id], "failed")
    assert over.wait(60)
    lasting(lambda: effects(database) == [], 0.3)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.error or "").startswith("TimeoutError")


@KINDS
def test_jobs_that_a_transactional_job_enqueues_on_its_connection_are_there_if_it_commits(
    start: Start, queue: JobQueue, kind: str
) -> None:
    @job
    def child(n: int) -> int:
        return n

    @job(transactional=True, retry=0.05)
    def parent(ctx: JobContext) -> str:
        child_id: str = ctx.queue.options(connection=ctx.connection).enqueue(child, ctx.job.attempts)
        if ctx.job.attempts == 0:
            raise ValueError
        return child_id

    @job(transactional=True, retry=0.05)
    async def aparent(ctx: JobContext) -> str:
        child_id: str = await ctx.queue.options(connection=ctx.connection).enqueue(child, ctx.job.attempts)
        if ctx.job.attempts == 0:
            raise ValueError
        return child_id

    start()
    job_id = queue.enqueue(parent if kind == "def" else aparent)
    ended(queue, [job_id])
    children = [j for j in queue.list_jobs() if j.id != job_id]
    assert len(children) == 1
    ended(queue, [children[0].id])
    assert children[0].data == {"n": 1}


@KINDS
def test_a_transactional_job_that_breaks_its_connection_is_retried(
    start: Start, queue: JobQueue, database: Database, kind: str
) -> None:
    @job(transactional=True, retry=0.05)
    def write(ctx: JobContext) -> None:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts == 0:
            database.rows("select pg_terminate_backend(%s)", ctx.connection.info.backend_pid)

    @job(transactional=True, retry=0.05)
    async def awrite(ctx: JobContext) -> None:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts == 0:
            database.rows("select pg_terminate_backend(%s)", ctx.connection.info.backend_pid)

    start()
    job_id = queue.enqueue(write if kind == "def" else awrite)
    ended(queue, [job_id])
    assert effects(database) == [(job_id, 1)]


@KINDS
def test_a_transactional_job_whose_lease_went_to_another_leaves_no_effect(
    start: Start, queue: JobQueue, database: Database, kind: str, events: Events
) -> None:
    """Its lease is taken away as a rescue does it, while it runs; the claim that follows completes it."""
    began = threading.Event()

    @job(transactional=True)
    def write(ctx: JobContext) -> None:
        ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts == 0:
            began.set()
            time.sleep(0.6)

    @job(transactional=True)
    async def awrite(ctx: JobContext) -> None:
        await ctx.connection.execute(INSERT, (ctx.job.id, ctx.job.attempts))
        if ctx.job.attempts == 0:
            began.set()
            time.sleep(0.6)  # noqa: ASYNC251 - it must not notice

    start(lease=30.0)
    job_id = queue.enqueue(write if kind == "def" else awrite)
    assert began.wait(60)
    database.rows("update dbjobq.lease set expires_at = now() - interval '1 s'")
    pulse = queue.storage.session("rescuer", None, 30.0).pulse()
    assert [rescued.id for rescued in pulse.rescue()] == [job_id]
    pulse.close()
    ended(queue, [job_id])
    assert effects(database) == [(job_id, 1)]
    until(lambda: events.jobs("job.refused") == [job_id])


@KINDS
def test_more_transactional_jobs_at_once_than_the_pool_has_connections_all_get_their_turn(
    start: Start, queue: JobQueue, kind: str
) -> None:
    @job(transactional=True)
    def slow(ctx: JobContext) -> None:
        ctx.connection.execute("select pg_sleep(0.2)")

    @job(transactional=True)
    async def aslow(ctx: JobContext) -> None:
        await ctx.connection.execute("select pg_sleep(0.2)")

    start(concurrency=15)
    ids = [queue.enqueue(slow if kind == "def" else aslow) for _ in range(30)]
    ended(queue, ids, timeout=60)
    assert {j.attempts for j in queue.get_completed_jobs()} == {0}


@KINDS
def test_a_transactional_job_without_retries_is_not_started_again_though_its_connection_broke(
    start: Start, queue: JobQueue, database: Database, kind: str
) -> None:
    """It has started, and may have done more than write here."""
    ran: list[int] = []

    @job(transactional=True, max_retries=0)
    def write(ctx: JobContext) -> None:
        ran.append(1)
        database.rows("select pg_terminate_backend(%s)", ctx.connection.info.backend_pid)

    @job(transactional=True, max_retries=0)
    async def awrite(ctx: JobContext) -> None:
        ran.append(1)
        database.rows("select pg_terminate_backend(%s)", ctx.connection.info.backend_pid)

    start()
    ended(queue, [queue.enqueue(write if kind == "def" else awrite)], "failed")
    assert ran == [1]


@KINDS
def test_a_transactional_job_that_gets_no_connection_was_not_started_and_is_not_charged(
    start: Start, queue: JobQueue, dsn: str, kind: str
) -> None:
    @job(transactional=True, max_retries=0)
    def slow(ctx: JobContext) -> None:
        ctx.connection.execute("select pg_sleep(0.5)")

    @job(transactional=True, max_retries=0)
    async def aslow(ctx: JobContext) -> None:
        await ctx.connection.execute("select pg_sleep(0.5)")

    with PostgresStorage(dsn, max_size=1, timeout=0.3) as storage:
        worker = start(JobQueue(storage), concurrency=3)
        ids = [queue.enqueue(slow if kind == "def" else aslow) for _ in range(3)]
        ended(queue, ids)
        assert {j.attempts for j in queue.get_completed_jobs()} == {0}
        worker.stop()
