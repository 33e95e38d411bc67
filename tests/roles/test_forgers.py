"""What somebody who may only enqueue can write by hand: it does nothing to the jobs of others."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq import JobQueue, StorageUnavailable
from dbjobq.schema import migrate
from dbjobq.storage.postgres.worker.session import PostgresSession
from tests.storage.database import Database
from tests.storage.workers import claim, ended, exchange, rescue, run, worker

if TYPE_CHECKING:
    from dbjobq import PostgresStorage
    from dbjobq.storage.values import Claim
    from tests.roles.conftest import Roles


@pytest.fixture
def forger(roles: Roles) -> Iterator[Database]:
    """A producer's own connection."""
    with Database(roles.make("producer")) as forger:
        yield forger


PLACES: dict[str, LiteralString] = {
    "its own place": "insert into dbjobq.ready (position, queue, priority, job_id)"
    " select position, 1, 5, id from dbjobq.job where id = %s",
    "a place in front": "insert into dbjobq.ready (position, queue, priority, job_id) values (1, 1, 1000, %s)",
    "a place in another queue": "insert into dbjobq.ready (position, queue, priority, job_id) values (1, 2, 5, %s)",
    "two places": "insert into dbjobq.ready (position, queue, priority, job_id)"
    " select n, 1, 4 * n, %s from generate_series(1, 2) as n",
    "a place in time": "insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)"
    " values (now() - interval '1 h', 1, 1, 1000, %s)",
}


def in_the_state(queue: JobQueue, state: str) -> str:
    """Return a job that is in a state."""
    job_id = queue.options(delay=0.0 if state != "scheduled" else 3600.0, max_retries=0).enqueue("f")
    if state == "cancelled":
        assert queue.cancel(job_id)
    if state in {"completed", "failed", "running"}:
        job = queue.dequeue()
        assert job is not None
        assert job.id == job_id
        if state == "completed":
            queue.complete(job)
        if state == "failed":
            queue.fail(job, "no")
    return job_id


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "running", "scheduled", "waiting", "given back"])
def test_a_job_does_not_run_where_a_producer_has_put_it(
    storage: PostgresStorage, queue: JobQueue, database: Database, forger: Database, state: str
) -> None:
    database.rows("insert into dbjobq.queue (name) values ('another')")

    async def forged(place: str) -> None:
        async with worker(storage) as session:
            job_id = in_the_state(queue, state)
            if state == "given back":
                await exchange(session, [ended(c, "release") for c in await claim(session)])
            before = queue.get_job(job_id)
            forger.rows(PLACES[place], job_id)
            honest = queue.enqueue("f")
            expected = {honest} | ({job_id} if state in {"waiting", "given back"} else set[str]())
            found: list[Claim] = []
            while len(found) < len(expected):
                found += await claim(session, 1)
            assert sorted(c.id for c in found) == sorted(expected)
            assert all(c.priority == 5 for c in found)
            assert (await exchange(session, [ended(c) for c in found])).refused == []
            assert await claim(session) == []
            while database.value("select count(*) from dbjobq.ready"):  # near claims do not meet all of them
                assert await claim(session) == []
            if job_id not in expected:
                assert queue.get_job(job_id) == before
        assert database.value("select count(*) from dbjobq.scheduled") == (state == "scheduled")
        assert database.value("select count(*) from dbjobq.lease") == (state == "running")

    for place in PLACES:
        if (state, place) != ("scheduled", "a place in time"):  # which the table refuses
            run(forged(place))
            database.rows("truncate dbjobq.scheduled, dbjobq.lease")


@pytest.mark.parametrize("place", ["its own place", "a place in front"])
def test_nor_does_dequeue_take_it_there(queue: JobQueue, forger: Database, place: str) -> None:
    done = in_the_state(queue, "completed")
    for _ in range(3):
        forger.rows(PLACES[place], done)
    honest = queue.enqueue("f")
    job = queue.dequeue()
    assert job is not None
    assert job.id == honest
    assert queue.dequeue() is None


def test_so_many_forged_places_are_cleared_at_once(
    storage: PostgresStorage, queue: JobQueue, database: Database, forger: Database
) -> None:
    done = in_the_state(queue, "completed")
    forger.rows(
        "insert into dbjobq.ready (position, queue, priority, job_id)"
        " select n, 1, 9, %s from generate_series(1, 3000) as n",
        done,
    )
    honest = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            assert [c.id for c in await claim(session)] == [honest]

    run(main())
    assert database.value("select count(*) from dbjobq.ready") == 0


def test_jobs_run_though_they_and_their_places_were_written_apart(queue: JobQueue, database: Database) -> None:
    """As after a dump was restored, row by row."""
    ids = {*queue.enqueue_many("f", ({} for _ in range(5))), queue.options(delay=0.001).enqueue("f")}
    for table in ("ready", "scheduled", "job"):
        database.connection.execute(f"create temp table old as select * from dbjobq.{table}".encode())
        database.connection.execute(f"delete from dbjobq.{table}".encode())
        database.connection.execute(f"insert into dbjobq.{table} select * from old".encode())
        database.connection.execute(b"drop table old")
    taken = [queue.dequeue() for _ in ids]
    assert {job.id for job in taken if job is not None} == ids
    assert queue.dequeue() is None


def test_a_job_of_a_place_in_time_that_was_forged_while_it_ran_is_retried_when_it_is_due(
    storage: PostgresStorage, queue: JobQueue, database: Database, forger: Database
) -> None:
    job_id = queue.options(max_retries=3).enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session)
            forger.rows(
                "insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)"
                " values ('9998-01-01', 1, 1, 1, %s)",
                job_id,
            )
            assert (await exchange(session, [ended(held, "retry")])).refused == []
            assert [(c.id, c.attempts, c.priority) for c in await claim(session)] == [(job_id, 1, 5)]

    run(main())
    assert database.value("select count(*) from dbjobq.scheduled") == 0


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_nor_does_a_forged_place_keep_one_from_reviving_a_job_or_from_cancelling_it(
    queue: JobQueue, forger: Database, end: str
) -> None:
    job_id = in_the_state(queue, end)
    place: LiteralString = (
        "insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id) values ('9998-01-01', 1, 1, 1, %s)"
    )
    forger.rows(place, job_id)
    assert queue.retry(job_id, 60)
    found = queue.get_job(job_id)
    assert found is not None
    assert found.execute_at is not None
    assert found.execute_at.year < 9998
    waiting = queue.enqueue("f")
    forger.rows(place, waiting)
    assert queue.cancel(waiting)
    assert queue.count("cancelled") == 1


def test_a_place_in_the_future_hides_nothing_that_comes_after_it(
    storage: PostgresStorage, queue: JobQueue, forger: Database
) -> None:
    """Whoever claims it looks on from where it is now, not from there."""
    forged = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            assert [c.id for c in await claim(session, 1)] == [forged]
            with psycopg.connect(forger.dsn) as connection:
                connection.execute(
                    b"with body as (insert into dbjobq.job (queue, priority, max_retries, id, type, data)"
                    b" values (1, 5, 3, gen_random_uuid(), 'f', '{}') returning id)"
                    b" insert into dbjobq.ready (position, queue, priority, job_id)"
                    b" select 1::bigint << 61, 1, 5, id from body"
                )
            assert len(await claim(session, 1)) == 1
            honest = [queue.enqueue("f") for _ in range(2)]
            assert isinstance(session, PostgresSession)
            assert all(last < 1 << 60 for last in session._queues.start._last_positions.values())  # pyright: ignore[reportPrivateUsage]
            assert [c.id for c in await claim(session, 2)] == honest

    run(main())


def test_nobody_switches_rescue_off_who_may_only_connect(
    storage: PostgresStorage, queue: JobQueue, database: Database, roles: Roles
) -> None:
    job_id = in_the_state(queue, "running")
    database.rows("update dbjobq.lease set expires_at = now() - interval '1 s'")
    with Database(roles.make()) as stranger:
        stranger.rows("select pg_advisory_lock(hashtext('dbjobq.rescue'), hashtext('dbjobq'))")
        assert [found.id for found in rescue(storage)] == [job_id]


TURN = "select pg_advisory_lock(hashtextextended('dbjobq.migrate.dbjobq', 0))"


def test_nobody_holds_up_migrations_who_may_only_connect(dsn: str, database: Database, roles: Roles) -> None:
    with Database(roles.make()) as stranger:
        stranger.rows(TURN)
        migrate(dsn, timeout=0.2)  # would raise StorageUnavailable
        with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.connection.transaction():
            stranger.rows("lock table dbjobq.schema_version in share update exclusive mode")


def test_nobody_holds_up_the_first_migration_who_may_only_connect(empty_dsn: str, roles: Roles) -> None:
    login = conninfo_to_dict(roles.make())
    with Database(make_conninfo(empty_dsn, user=login["user"], password=login["password"])) as stranger:
        stranger.rows(TURN)
        assert migrate(empty_dsn, timeout=5.0)


def test_who_migrates_is_waited_for_by_either_lock(dsn: str, database: Database) -> None:
    pid = database.value("select pg_backend_pid()")
    with database.connection.transaction():
        database.rows("lock table dbjobq.schema_version in share update exclusive mode")
        with pytest.raises(StorageUnavailable, match=f"pid {pid} "):
            migrate(dsn, timeout=0.1)
    database.rows(TURN)  # as a release before does it, alone
    with pytest.raises(StorageUnavailable, match=f"pid {pid} "):
        migrate(dsn, timeout=0.1)


@pytest.mark.parametrize("state", ["not there", "without a key", "of another key", "completed", "cancelled"])
def test_a_key_is_not_held_by_a_job_that_does_not_hold_it(queue: JobQueue, forger: Database, state: str) -> None:
    if state in {"completed", "cancelled"}:
        job_id = queue.options(unique_key="k").enqueue("f")
        if state == "cancelled":
            assert queue.cancel(job_id)
        else:
            job = queue.dequeue()
            assert job is not None
            queue.complete(job)
    else:
        of_another = queue.options(unique_key="other") if state == "of another key" else queue
        job_id = str(uuid.uuid4()) if state == "not there" else of_another.enqueue("f")
    with pytest.raises(psycopg.errors.CheckViolation):
        forger.rows("insert into dbjobq.unique_key (key, job_id) values ('k', %s)", job_id)
    assert queue.options(unique_key="k").enqueue("f") != job_id


def test_nobody_puts_an_operator_of_their_own_before_the_check(forger: Database, database: Database) -> None:
    database.rows("create schema forged")
    database.rows("grant all on schema forged to public")
    forger.rows("create function forged.yes(uuid, uuid) returns bool immutable language sql as 'select true'")
    forger.rows("create operator forged.= (leftarg = uuid, rightarg = uuid, function = forged.yes)")
    forger.rows("set search_path = forged, pg_catalog")
    with pytest.raises(psycopg.errors.CheckViolation):
        forger.rows("insert into dbjobq.unique_key (key, job_id) values ('k', gen_random_uuid())")
    forger.rows("drop operator forged.= (uuid, uuid)")
    forger.rows("drop function forged.yes")
