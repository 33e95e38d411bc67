"""The short way of a plain enqueue: where it is taken, and that nothing is different there but the time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from dbjobq import Job, JobQueue, PostgresStorage, StorageUnavailable, job
from dbjobq.storage.postgres.connect.prepared import PreparedEnqueue
from tests.storage.database import Database
from tests.support.looking import get

PREPARED = "select count(*) from pg_prepared_statements where name like 'dbjobq%'"


@job(name="prepared.work", priority=-7, max_retries=0, timeout=2.5)
def work(n: int = 0, text: str = "") -> None: ...


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each plain enqueue of this test took the short way."""
    answers: list[bool] = []
    execute = PreparedEnqueue.execute

    def noting(self: PreparedEnqueue, *args: Any) -> int | None:
        rows = execute(self, *args)
        answers.append(rows is not None)
        return rows

    monkeypatch.setattr(PreparedEnqueue, "execute", noting)
    return answers


@pytest.fixture
def plain(dsn: str, database: Database) -> Iterator[JobQueue]:
    with JobQueue(PostgresStorage(dsn, max_size=1)) as queue:
        yield queue


def only(queue: JobQueue) -> psycopg.Connection[Any]:
    """The one connection of its pool, at rest."""
    assert isinstance(queue.storage, PostgresStorage)
    with queue.storage.connections.connection() as connection:
        return connection


@pytest.fixture
def connection(plain: JobQueue) -> psycopg.Connection[Any]:
    return only(plain)


@pytest.fixture
def warm(plain: JobQueue, connection: psycopg.Connection[Any], taken: list[bool]) -> JobQueue:
    """A queue that has enqueued often enough for the short way, whose turn it is."""
    for _ in range(8):
        plain.enqueue(work)
    assert taken == [False] * 5 + [True] * 3
    return plain


def test_it_is_taken_when_a_connection_has_been_used_some_times_and_writes_the_same_job(
    plain: JobQueue, taken: list[bool]
) -> None:
    arguments: dict[str, Any] = {"n": 2**62, "text": "ä🙂\"'\\%(id)s$1"}
    jobs = [get(plain, plain.enqueue(work, **arguments)) for _ in range(12)]
    assert taken == [False] * 5 + [True] * 7

    def fixed(found: Job) -> dict[str, Any]:
        moving = {"id", "created_at", "updated_at"}
        return {name: value for name, value in vars(found).items() if name not in moving}

    assert all(fixed(found) == fixed(jobs[0]) for found in jobs)
    assert (jobs[-1].data, jobs[-1].priority, jobs[-1].max_retries) == (arguments, -7, 0)
    assert (jobs[-1].status, jobs[-1].execute_at, jobs[-1].queue) == ("pending", None, "default")


def test_a_timeout_of_the_calls_own_and_an_unknown_name_take_it_too(plain: JobQueue, taken: list[bool]) -> None:
    for _ in range(6):
        plain.enqueue("somebody.elses", x=1)
    last = plain.options(timeout=0.125, queue="default").enqueue("somebody.elses", x=1)
    assert taken[-2:] == [True, True]
    assert get(plain, last).type == "somebody.elses"


def test_a_name_beyond_ascii_takes_the_usual_way_whatever_the_connections_encoding(
    plain: JobQueue, connection: psycopg.Connection[Any], taken: list[bool]
) -> None:
    connection.execute("set client_encoding = 'LATIN1'")
    for _ in range(7):
        plain.enqueue("plain")
    found = get(plain, plain.enqueue("größer"))
    assert taken[-2:] == [True, False]
    assert found.type == "größer"


@pytest.mark.parametrize("forget", ["discard all", "deallocate all"])
def test_a_session_that_has_forgotten_what_was_prepared_gets_its_job_all_the_same(
    warm: JobQueue, connection: psycopg.Connection[Any], taken: list[bool], forget: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(forget.encode(), prepare=False)
    ids = [warm.enqueue(work) for _ in range(8)]
    assert taken == [False] * 5 + [True] * 3 + [False] * 6 + [True] * 2
    assert warm.count("pending") == 16
    assert [get(warm, i).id for i in ids] == ids


def test_not_in_a_callers_transaction_which_a_refusal_would_end(
    warm: JobQueue, connection: psycopg.Connection[Any], taken: list[bool], dsn: str
) -> None:
    with connection.transaction(force_rollback=True):
        gone = warm.options(connection=connection).enqueue(work)
    assert not any(taken[8:])
    assert warm.get_job(gone) is None
    with psycopg.connect(dsn) as mine:
        kept = [warm.options(connection=mine).enqueue(work) for _ in range(8)]
        assert warm.get_job(kept[0]) is None
    assert [get(warm, i).id for i in kept] == kept
    assert not any(taken[8:])


def test_not_in_a_pipeline(warm: JobQueue, connection: psycopg.Connection[Any], taken: list[bool]) -> None:
    with connection.pipeline():
        ids = [warm.options(connection=connection).enqueue(work) for _ in range(3)]
    assert not any(taken[8:])
    assert [get(warm, i).id for i in ids] == ids


def test_nothing_is_prepared_where_nothing_may_be(
    plain: JobQueue, connection: psycopg.Connection[Any], taken: list[bool]
) -> None:
    connection.prepare_threshold = None
    for _ in range(8):
        plain.enqueue(work)
    assert not any(taken)
    assert connection.execute(PREPARED, prepare=False).fetchone() == (0,)


def test_a_name_that_somebody_has_taken_on_the_connection_is_left_to_him(dsn: str, taken: list[bool]) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True, kwargs={"autocommit": True}) as pool:
        first, second = JobQueue(PostgresStorage(pool)), JobQueue(PostgresStorage(pool))
        for _ in range(6):
            first.enqueue(work)
        assert taken[-1]
        ids = [second.enqueue(work) for _ in range(8)]  # by the same name: of the same text
        assert not any(taken[6:])
        assert len({get(first, i).id for i in ids}) == 8


def test_what_the_server_refuses_raises_as_ever_and_the_connection_goes_on(
    warm: JobQueue, connection: psycopg.Connection[Any], taken: list[bool], database: Database
) -> None:
    database.rows("alter table dbjobq.job add constraint refused check (type <> 'refused')")
    with pytest.raises(psycopg.errors.CheckViolation, match="refused"):
        warm.enqueue("refused")
    warm.enqueue(work)
    assert taken == [False] * 5 + [True] * 4
    assert only(warm) is connection
    assert warm.count("pending") == 9


def test_a_statement_that_takes_too_long_is_not_sent_again(
    warm: JobQueue, connection: psycopg.Connection[Any], database: Database
) -> None:
    connection.execute("set statement_timeout = 1000")
    waits = "select query_start from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    begun: set[tuple[object, ...]] = set()
    with psycopg.connect(database.dsn) as other, ThreadPoolExecutor(1) as thread:
        other.execute("lock table dbjobq.job in access exclusive mode")
        call = thread.submit(warm.enqueue, work)
        while not call.done():
            begun.update(database.rows(waits, connection.info.backend_pid))
        with pytest.raises(StorageUnavailable, match="gave up the statement"):
            call.result()
    assert len(begun) == 1
    warm.enqueue(work)
    assert warm.count("pending") == 9


def test_threads_that_share_a_connection_take_turns(
    plain: JobQueue, connection: psycopg.Connection[Any], taken: list[bool]
) -> None:
    def enqueue(n: int) -> str:
        return plain.enqueue(work, n)

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(enqueue, range(400)))
    assert sum(taken) == 395
    assert {found.id: found.data["n"] for found in plain.list_jobs("pending")} == dict(
        zip(ids, range(400), strict=True)
    )
    assert connection.execute(PREPARED).fetchone() == (1,)
