"""Connections that break, servers that restart, networks that swallow: what the table says in the end is right."""

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage, StorageUnavailable, Worker, job, schema
from dbjobq.embedded import EmbeddedPostgres
from tests.storage.database import Database
from tests.support.crash import crash
from tests.support.faultproxy import proxied
from tests.support.waiting import ended, settled, until
from tests.worker.conftest import LASTING, Events, Start

EVERYBODY_ELSE = """
    select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name = 'dbjobq'
"""


def test_terminating_all_backends_again_and_again_under_load_loses_nothing_and_charges_nothing(
    start: Start, queue: JobQueue, database: Database
) -> None:
    ran: Counter[int] = Counter()

    @job
    async def work(n: int) -> int:
        ran[n] += 1
        await asyncio.sleep(0.002)
        return n

    @job
    def sync_work(n: int) -> None:
        ran[n] += 1

    start(concurrency=5, lease=30.0)
    ids = list(queue.enqueue_many(work, [{"n": n} for n in range(2000)]))
    ids += queue.enqueue_many(sync_work, [{"n": n} for n in range(2000, 4000)])
    for n in range(8):
        until(lambda n=n: len(ran) > 400 * n)  # type: ignore[misc]
        database.rows(EVERYBODY_ELSE)
    ended(queue, ids)
    jobs = queue.list_jobs()
    assert len(jobs) == 4000
    assert {j.attempts for j in jobs} == {0}
    assert {n for n, count in ran.items() if count > 1} == set()
    assert all(j.result == j.data["n"] for j in jobs if j.data["n"] < 2000)


def test_a_primary_that_becomes_a_standby_under_its_clients_ends_no_worker_and_is_told_to_producers(
    start: Start, queue: JobQueue, dsn: str, database: Database, events: Events
) -> None:
    """A failover that leaves connections as they are: what writes is refused, until the name leads elsewhere."""

    @job
    def work() -> str:
        return "done"

    start(lease=30.0)
    ended(queue, [queue.enqueue(work) for _ in range(7)])
    database.rows("set default_transaction_read_only = off")
    database.rows(f"alter database {database.connection.info.dbname} set default_transaction_read_only = on")  # pyright: ignore[reportArgumentType]
    database.rows(EVERYBODY_ELSE)
    with (
        PostgresStorage(dsn, timeout=3.0) as impatient,
        pytest.raises(StorageUnavailable, match=r"PostgreSQL answered: .*read-only .*Nothing was stored"),
    ):
        JobQueue(impatient).enqueue(work)
    until(lambda: events.of("database.lost"))
    database.rows(f"alter database {database.connection.info.dbname} reset default_transaction_read_only")  # pyright: ignore[reportArgumentType]
    database.rows(EVERYBODY_ELSE)
    job_id = until(lambda: enqueued(queue, work))
    ended(queue, [job_id])


def enqueued(queue: JobQueue, function: Callable[[], str]) -> str:
    """Enqueue a job; empty if that is refused."""
    try:
        return queue.enqueue(function)
    except StorageUnavailable:
        return ""


def test_a_result_that_cannot_be_written_in_the_time_the_server_allows_is_kept_and_sent_again(
    start: Start, queue: JobQueue, dsn: str, database: Database, events: Events
) -> None:
    running, go_on = threading.Event(), threading.Event()

    @job
    def work() -> str:
        running.set()
        go_on.wait(LASTING)
        return "kept"

    with PostgresStorage(make_conninfo(dsn, options="-c statement_timeout=200ms")) as storage:
        start(JobQueue(storage), lease=30.0)
        job_id = queue.enqueue(work)
        assert running.wait(60)
        with database.connection.transaction():
            database.rows("select from dbjobq.lease for update")
            go_on.set()
            until(lambda: events.of("database.refuses"))
        ended(queue, [job_id])
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.result, found.error, found.attempts) == ("kept", None, 0)
        assert "gave up the statement" in vars(events.of("database.refuses")[0])["error"]


@pytest.mark.parametrize("kind", ["plain", "result", "retry"])
def test_a_result_whose_reply_is_lost_is_sent_again_and_not_taken_for_a_late_one(
    start: Start, queue: JobQueue, dsn: str, database: Database, events: Events, kind: str
) -> None:
    go_on, ran = threading.Event(), list[int]()

    @job(retry=0.2)
    def work() -> str | None:
        ran.append(1)
        go_on.wait(LASTING)
        if kind == "retry" and len(ran) == 1:
            raise ValueError
        return "kept" if kind == "result" else None

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=30.0)
        job_id = queue.enqueue(work)
        until(lambda: ran)
        proxy.delay(0.5)  # each way: half a second passes between the commit and its reply's arrival
        go_on.set()
        until(lambda: database.value("select count(*) from dbjobq.lease") == 0)
        proxy.reset()
        proxy.delay(0)
        ended(queue, [job_id])
        until(lambda: events.of("database.restored"))
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.attempts, found.result) == (kind == "retry", "kept" if kind == "result" else None)
        assert len(ran) == 1 + (kind == "retry")
        assert not events.of("job.refused")
        worker.stop()


@pytest.mark.parametrize("lease", [2.0, 30.0])
def test_a_claim_whose_reply_is_lost_goes_back_free_of_charge_for_its_jobs_were_not_started(
    start: Start, queue: JobQueue, dsn: str, database: Database, lease: float
) -> None:
    """The worker that holds it does not know of it, but lives: it must find out, or no one will."""
    ran: list[int] = []

    @job
    def work() -> None:
        ran.append(1)

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=lease)
        ended(queue, [queue.enqueue(work)])
        ran.clear()
        proxy.delay(0.5)
        job_id = queue.enqueue(work, max_retries=0)
        until(lambda: database.value("select count(*) from dbjobq.lease") == 1)
        proxy.reset()
        proxy.delay(0)
        assert ran == []
        ended(queue, [job_id])
        found = queue.get_job(job_id)
        assert found is not None
        assert found.attempts == 0
        worker.stop()


def test_a_claim_whose_reply_is_lost_is_rescued_though_its_worker_is_kept_busy(
    start: Start, queue: JobQueue, dsn: str, database: Database
) -> None:
    """The same, while the worker's life is prolonged by what it runs after."""

    @job
    def work(n: int) -> None:
        time.sleep(0.02)

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=2.0)
        ended(queue, [queue.enqueue(work, n=-1)])
        proxy.delay(0.5)
        job_id = queue.enqueue(work, n=0)
        until(lambda: database.value("select count(*) from dbjobq.lease") == 1)
        proxy.reset()
        proxy.delay(0)
        busy = queue.enqueue_many(work, [{"n": n} for n in range(1, 150)])
        ended(queue, [job_id])
        ended(queue, busy, timeout=60)
        worker.stop()


def test_a_black_holed_workers_jobs_are_taken_over_and_its_late_result_refused(
    start: Start, queue: JobQueue, dsn: str, events: Events
) -> None:
    go_on = threading.Event()
    by: list[str | None] = []
    from dbjobq import JobContext

    @job
    def work(ctx: JobContext) -> str:
        by.append(ctx.job.worker_id)
        if len(by) == 1:
            go_on.wait(LASTING)
            return "late"
        return "in time"

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        holed = start(JobQueue(storage), lease=3.0, shutdown_timeout=1.0)
        job_id = queue.enqueue(work)
        until(lambda: by)
        direct = start(lease=6.0)
        proxy.blackhole()
        ended(queue, [job_id])
        assert by == [holed.worker_id, direct.worker_id]
        go_on.set()
        proxy.heal()
        until(lambda: job_id in events.jobs("job.refused") + events.jobs("job.taken"))
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.result, found.attempts) == ("in time", 1)
        again = queue.enqueue(work)
        ended(queue, [again])
        direct.stop()
        last = queue.enqueue(work)
        ended(queue, [last])  # by the worker that was in the hole
        holed.stop()


def test_a_worker_that_cannot_renew_ends_its_coroutines_before_others_may_take_their_jobs(
    start: Start, queue: JobQueue, dsn: str, events: Events
) -> None:
    story: list[str] = []

    @job
    async def work() -> None:
        story.append("start")
        try:
            await asyncio.sleep(LASTING if len(story) == 1 else 0)
        except asyncio.CancelledError:
            story.append("cancelled")
            raise

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        start(JobQueue(storage), lease=3.0, shutdown_timeout=1.0)
        job_id = queue.enqueue(work)
        until(lambda: story)
        start(lease=6.0)
        proxy.blackhole()
        ended(queue, [job_id])
        assert story == ["start", "cancelled", "start"]
        assert events.jobs("job.fenced") == [job_id]
        proxy.heal()


def test_a_job_that_was_fenced_is_charged_though_nobody_else_was_there_to_rescue_it(
    start: Start, queue: JobQueue, dsn: str, events: Events
) -> None:
    """Its own worker comes back first. It may not hand back free of charge, or keep for ever, what it has started."""
    story: list[str] = []

    @job(max_retries=0)
    async def once() -> None:
        story.append("once")
        await asyncio.sleep(LASTING)

    @job
    async def hello() -> None: ...

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        start(JobQueue(storage), lease=3.0, shutdown_timeout=1.0)
        job_id = queue.enqueue(once)
        until(lambda: story)
        proxy.blackhole()
        until(lambda: events.jobs("job.fenced") == [job_id])
        proxy.heal()
        proxy.reset()
        ended(queue, [queue.enqueue(hello)])
        ended(queue, [job_id], "failed")
        found = queue.get_job(job_id)
        assert found is not None
        assert "WorkerLost" in (found.error or "")
        assert story == ["once"]


def test_a_result_from_a_short_black_hole_is_accepted(start: Start, queue: JobQueue, dsn: str) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def work() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=30.0)
        start(lease=30.0)
        job_id = queue.enqueue(work)
        assert began.wait(60)
        proxy.blackhole()
        go_on.set()
        time.sleep(1.0)  # the hole's length
        proxy.heal()
        ended(queue, [job_id])
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.result, found.attempts) == ("kept", 0)
        worker.stop()


@pytest.mark.slow
def test_a_worker_in_a_black_hole_that_stays_starts_nothing_it_claimed_before(
    start: Start, queue: JobQueue, dsn: str
) -> None:
    """Its claim's reply comes when the lease is long over: none of it may start without a retry to pay for it."""
    ran: list[int] = []

    @job(max_retries=0)
    def work(n: int) -> None:
        ran.append(n)

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=2.0)
        ended(queue, [queue.enqueue(work, n=-1)])
        proxy.delay(0.3)
        queue.enqueue_many(work, [{"n": n} for n in range(20)])
        until(lambda: queue.count("running") > 0)
        proxy.blackhole()
        start(lease=2.0)
        settled(queue)
        before = Counter(ran)
        proxy.heal()
        until(lambda: worker.current_job is None)
        time.sleep(1.5)
        assert Counter(ran) == before
        assert max(before.values()) == 1
        worker.stop()


def test_the_worker_goes_on_after_every_connection_was_reset(start: Start, queue: JobQueue, dsn: str) -> None:
    @job
    async def hello() -> None: ...

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage))
        for _ in range(5):
            ended(queue, [queue.enqueue(hello)])
            proxy.reset()
        ended(queue, [queue.enqueue(hello)])
        worker.stop()


def test_a_database_that_is_away_for_a_while_costs_no_attempt(
    start: Start, queue: JobQueue, dsn: str, events: Events
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def work() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        worker = start(JobQueue(storage), lease=30.0)
        job_id = queue.enqueue(work)
        assert began.wait(60)
        proxy.refuse()
        go_on.set()
        until(lambda: events.of("database.lost"))
        time.sleep(1.0)  # the outage's length
        proxy.heal()
        ended(queue, [job_id])
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.result, found.attempts) == ("kept", 0)
        assert len(events.of("database.lost")) == len(events.of("database.restored")) == 1
        worker.stop()


# A server of our own, to be crashed. What it has committed survives: the kernel keeps what was written.


@pytest.fixture
def own_dsn() -> Iterator[str]:
    with EmbeddedPostgres(settings={"synchronous_commit": "on"}) as server:
        schema.migrate(server.dsn())
        yield server.dsn()


@pytest.mark.slow
def test_workers_and_producers_go_on_when_the_server_crashes_and_recovers(own_dsn: str) -> None:
    ran: Counter[int] = Counter()
    acknowledged: list[str] = []
    enough = threading.Event()

    @job
    async def work(n: int) -> int:
        ran[n] += 1
        await asyncio.sleep(0.001)
        return n

    @job
    def hello() -> None: ...

    with PostgresStorage(own_dsn) as storage:
        queue = JobQueue(storage)

        def produce() -> None:
            n = 0
            while not enough.is_set():
                n += 1
                try:
                    acknowledged.append(queue.enqueue(work, n=n))
                except StorageUnavailable:
                    time.sleep(0.05)

        workers = [Worker(queue, poll_interval=0.05, concurrency=3, lease=5.0) for _ in range(2)]
        for worker in workers:
            worker.start()
        producer = threading.Thread(target=produce)
        producer.start()
        for _ in range(3):
            seen = len(acknowledged)
            until(lambda seen=seen: len(acknowledged) > seen + 200)  # type: ignore[misc]
            crash(own_dsn)
        seen = len(acknowledged)
        until(lambda: len(acknowledged) > seen + 50)
        enough.set()
        producer.join(60)
        settled(queue)
        done = {j.id: j for j in queue.list_jobs()}
        assert set(acknowledged) <= set(done)
        assert {j.status for j in done.values()} == {"completed"}
        assert all(j.result == j.data["n"] for j in done.values())
        ended(queue, [queue.enqueue(hello)])
        for worker in workers:
            worker.stop()
            assert worker.error is None
