"""Least privilege: what each kind of role can do, and what it cannot."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from dbjobq import AsyncJobQueue, JobContext, JobQueue, PostgresStorage, Worker, job
from dbjobq.doctor import examine
from dbjobq.errors import ConfigError, SchemaError
from dbjobq.schema import check, migrate
from dbjobq.schema.roles import KINDS, Kind, grant, grant_sql
from tests.roles.conftest import Roles
from tests.storage.database import Database
from tests.support.waiting import ended, until


def queue_of(dsn: str) -> Iterator[JobQueue]:
    with PostgresStorage(dsn) as storage:
        yield JobQueue(storage)


@pytest.fixture
def producer(roles: Roles) -> Iterator[JobQueue]:
    yield from queue_of(roles.make("producer"))


@pytest.fixture
def reader(roles: Roles) -> Iterator[JobQueue]:
    yield from queue_of(roles.make("reader"))


@pytest.fixture
def worker(roles: Roles) -> Iterator[JobQueue]:
    yield from queue_of(roles.make("worker"))


def refused(dsn: str, statement: str) -> bool:
    with psycopg.connect(dsn) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


# A producer.


def test_a_producer_enqueues_in_every_way_there_is(queue: JobQueue, roles: Roles) -> None:
    dsn = roles.make("producer")
    storage = PostgresStorage(dsn)
    storage.check().run()
    producer = JobQueue(storage)
    ids = [
        producer.enqueue("f", n=1),
        producer.options(queue="new", delay=60).enqueue("f"),
        producer.options(unique_key="k", timeout=5, priority=9).enqueue("f"),
        producer.options(id=str(uuid.uuid4())).enqueue("f"),
        *producer.enqueue_many("f", ({"n": n} for n in range(10))),
        *producer.options(delay=60).enqueue_many("f", [{"n": 1}]),
    ]
    assert producer.options(unique_key="k").enqueue("f") == ids[2]
    assert producer.options(id=ids[3]).enqueue("f") == ids[3]
    with psycopg.connect(dsn) as connection:
        ids.append(producer.options(connection=connection).enqueue("f"))

    async def main() -> list[str]:
        async with AsyncJobQueue(storage) as aqueue:
            return list(await asyncio.gather(*(aqueue.enqueue("f") for _ in range(5))))

    ids += asyncio.run(main())
    storage.close()
    assert sorted(job.id for job in queue.list_jobs()) == sorted(ids)


def test_an_enqueue_of_a_producer_wakes_workers(producer: JobQueue, database: Database) -> None:
    with database.notified() as heard:
        producer.enqueue("f")
    assert len(heard) == 1


Call = Callable[[JobQueue, str], object]
REFUSED: dict[str, Call] = {
    "dequeue": lambda queue, _: queue.dequeue(),
    "get": lambda queue, job_id: queue.get_job(job_id),
    "list": lambda queue, _: queue.list_jobs(),
    "stats": lambda queue, _: queue.stats(),
    "cancel": lambda queue, job_id: queue.cancel(job_id),
    "retry": lambda queue, job_id: queue.retry(job_id),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_a_producer_can_do_nothing_else(producer: JobQueue, call: Call) -> None:
    job_id = producer.enqueue("f", secret="x")
    with pytest.raises(ConfigError, match="may not do this"):
        call(producer, job_id)


@pytest.mark.parametrize(
    "statement",
    [
        "select data from dbjobq.job",
        "select type from dbjobq.job",
        "select result from dbjobq.done",
        "select error from dbjobq.failure",
        "select * from dbjobq.jobs",
        "select job_id from dbjobq.ready",
        "update dbjobq.job set data = '{}'",
        "delete from dbjobq.ready",
        "insert into dbjobq.done (job_id, attempts, status) values (gen_random_uuid(), 0, 2)",
        "insert into dbjobq.ready (position, queue, priority, job_id, attempts) values (1, 1, 1, gen_random_uuid(), 9)",
        "select nextval('dbjobq.claim')",
        "drop table dbjobq.ready",
    ],
)
def test_a_producer_reads_no_data_and_changes_nothing(roles: Roles, statement: str) -> None:
    assert refused(roles.make("producer"), statement)


# A worker.


@job(name="roles.work", retry=0.05)
def work(ctx: JobContext, *, fail: bool = False) -> str:
    ctx.progress(1, 2, "half")
    if fail and ctx.job.attempts == 0:
        raise ValueError("once")
    if not fail:
        ctx.queue.options(unique_key="once", delay=0.01).enqueue(work, fail=True)
    return "done"


@job(name="roles.transactional", transactional=True)
def transactional(ctx: JobContext) -> None:
    ctx.connection.execute("select 1")


BEGUN, TOLD = threading.Event(), threading.Event()


@job(name="roles.long")
async def long() -> None:
    BEGUN.set()
    try:
        await asyncio.sleep(60)
    finally:
        TOLD.set()


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], set[str]]:
    caplog.set_level("INFO", "dbjobq")
    return lambda: {record.getMessage() for record in caplog.records}


def test_a_worker_does_all_that_workers_do(
    worker: JobQueue, queue: JobQueue, database: Database, events: Callable[[], set[str]]
) -> None:
    queue.enqueue("roles.work", fail=True)
    left = queue.dequeue()  # by somebody who does not come back
    assert left is not None
    database.rows("update dbjobq.lease set expires_at = null")
    database.rows("update dbjobq.worker set expires_at = now() - interval '1 s'")
    with Worker(worker, 0.05, 0.2, concurrency=3, lease=4.0):
        ids = [left.id, queue.enqueue(work), queue.enqueue(work, fail=True), queue.enqueue(transactional)]
        ended(queue, ids)
        stuck = queue.enqueue(long)
        assert BEGUN.wait(60)
        until(lambda: database.value("select max(expires_at) > now() from dbjobq.worker"))
        assert queue.cancel(stuck)
        assert TOLD.wait(60)
        until(lambda: queue.count("completed") == 5)
    assert queue.count("pending") == queue.count("running") == queue.count("failed") == 0
    assert {"job.rescued", "job.retry", "job.cancelled"} <= events()
    assert not {"listener.lost", "service.failing", "service.broken"} & events()


def test_a_worker_works_by_hand_cancels_and_retries(worker: JobQueue) -> None:
    ids = list(worker.enqueue_many("f", [{"n": 1}, {"n": 2}, {"n": 3}]))
    first, second = worker.dequeue(), worker.dequeue()
    assert first is not None
    assert second is not None
    worker.complete(first)
    worker.fail(second, "no")
    assert worker.cancel(ids[2])
    assert worker.retry(ids[2])
    assert len(worker.list_jobs()) == 3
    assert worker.stats()["completed"] == 1


@pytest.mark.parametrize(
    "statement",
    [
        "drop table dbjobq.ready",
        "alter table dbjobq.job add column x int",
        "truncate dbjobq.ready",
        "delete from dbjobq.job",
        "update dbjobq.job set data = '{}'",
        "delete from dbjobq.failure",
        "update dbjobq.schema_version set version_num = '0'",
        "create table dbjobq.mine (x int)",
    ],
)
def test_a_worker_changes_neither_tables_nor_bodies_nor_history(roles: Roles, statement: str) -> None:
    assert refused(roles.make("worker"), statement)


def test_a_worker_cannot_migrate(roles: Roles) -> None:
    with pytest.raises(ConfigError, match="may not do this"):
        migrate(roles.make("worker"), to="base")


# A reader.


def test_a_reader_sees_everything_and_changes_nothing(reader: JobQueue, queue: JobQueue, roles: Roles) -> None:
    job_id = queue.enqueue("f", n=1)
    found = reader.get_job(job_id)
    assert found is not None
    assert found.data == {"n": 1}
    assert [job.id for job in reader.list_jobs("pending")] == [job_id]
    assert reader.stats()["pending"] == 1
    assert reader.storage.queue_stats().run()[0].ready == 1
    for call in (lambda: reader.enqueue("f"), reader.dequeue, lambda: reader.cancel(job_id)):
        with pytest.raises(ConfigError, match="may not do this"):
            call()
    assert refused(roles.make("reader"), "delete from dbjobq.job")


def test_a_reader_may_call_the_doctor_who_says_what_it_cannot_see(reader: JobQueue) -> None:
    found = {finding.check: finding for finding in examine(reader.storage)}
    assert found["rights"].severity == "notice"
    assert "pg_monitor" in found["rights"].advice
    assert found["states"].severity == found["orphans"].severity == found["indexes"].severity == "ok"


def test_the_doctor_tells_what_it_may_not_look_at(roles: Roles) -> None:
    with PostgresStorage(roles.make("producer")) as storage:
        found = {finding.check: finding for finding in examine(storage)}
    assert found["states"].severity == "notice"
    assert "could not be looked at" in found["states"].found
    assert "--as reader" in found["states"].advice


def test_a_role_may_be_of_two_kinds(roles: Roles) -> None:
    with PostgresStorage(roles.make("producer", "reader")) as storage:
        queue = JobQueue(storage)
        assert queue.get_job(queue.enqueue("f")) is not None


# An admin.


def test_an_admin_migrates_from_nothing_and_back_and_grants(dsn: str, roles: Roles) -> None:
    admin = roles.make("admin")
    migrate(admin, to="base")
    migrate(admin)
    check(admin)
    web = roles.make()
    grant(roles.made[-1], "producer", admin)
    with PostgresStorage(web) as storage:
        JobQueue(storage).enqueue("f")


def test_an_admin_may_be_made_before_there_are_tables(empty_dsn: str) -> None:
    roles = Roles(empty_dsn)
    try:
        migrate(roles.make("admin"))
        check(empty_dsn)
    finally:
        roles.drop()


# Granting.


@pytest.mark.parametrize("kind", KINDS)
def test_rights_can_be_given_again(roles: Roles, kind: Kind) -> None:
    roles.make(kind, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_quoted(kind: Kind) -> None:
    statements = grant_sql('o"; drop table x; --', kind, "My Schema")
    assert all('"My Schema"' in statement for statement in statements)
    assert all('"o""; drop table x; --"' in statement for statement in statements)


def test_a_role_that_is_not_there_is_one_clear_error(dsn: str) -> None:
    with pytest.raises(ConfigError, match="there is no role 'nobody at all'"):
        grant("nobody at all", "worker", dsn)


def test_without_tables_there_is_nothing_to_grant(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="dbjobq migrate"):
        grant("postgres", "worker", empty_dsn)
