"""Databases that hold other letters than ours, and sessions of others that write numbers and times in other ways."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from dbjobq import Job, JobQueue, PostgresStorage, Worker, job, schema
from tests.conftest import Postgres
from tests.storage.database import Database, database
from tests.support.waiting import ended, until

__all__ = ["database"]

SAID = "größer als 5 €: 日本"


@job(name="encodings.echo")
def echo(text: str) -> str:
    return text


@job(name="encodings.fail", max_retries=0)
def fail() -> None:
    raise ValueError(SAID)


@job(name="encodings.größe")
def size() -> None:
    pass


@contextmanager
def encoded(postgres: Postgres, encoding: str) -> Generator[str]:
    """The DSN of a migrated database with this encoding."""
    name = f"encoded_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        made = "create database {} template template0 encoding {} lc_collate 'C' lc_ctype 'C'"
        connection.execute(sql.SQL(made).format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            dsn = make_conninfo(postgres.dsn, dbname=name)
            schema.migrate(dsn)
            yield dsn
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def found(queue: JobQueue, job_id: str) -> Job:
    got = queue.get_job(job_id)
    assert got is not None
    return got


@pytest.mark.parametrize(
    ("encoding", "kept"),
    [
        ("LATIN1", r"größer als 5 \u20ac: \u65e5\u672c"),
        ("WIN1252", r"größer als 5 €: \u65e5\u672c"),
        ("EUC_JP", r"gr\xf6\xdfer als 5 \u20ac: \u65e5\u672c"),
        ("SQL_ASCII", SAID),
    ],
)
def test_what_a_database_cannot_hold_of_an_error_is_written_as_escapes_and_ends_no_worker(
    postgres: Postgres, encoding: str, kept: str
) -> None:
    with encoded(postgres, encoding) as dsn, PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        failed = [queue.enqueue(fail) for _ in range(3)]
        echoed = queue.enqueue(echo, text=SAID)
        bulk = queue.options(delay=0.001).enqueue_many(echo, [{"text": SAID}])
        with Worker(queue, poll_interval=0.05) as worker:
            ended(queue, failed, "failed")
            ended(queue, [echoed, *bulk])
        assert worker.error is None
        assert {(found(queue, i).error or "").partition("\n")[0] for i in failed} == {f"ValueError: {kept}"}
        assert found(queue, echoed).result == SAID
        by_hand = queue.enqueue(echo, text="")
        claim = queue.dequeue()
        assert claim is not None
        queue.fail(claim, SAID)
        assert found(queue, by_hand).error == kept


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_name_is_kept_as_it_is_or_refused_in_words(postgres: Postgres, encoding: str) -> None:
    with encoded(postgres, encoding) as dsn, PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        ids = [queue.options(queue="größe", unique_key="schlüssel").enqueue(size)]
        ids += queue.options(queue="größe").enqueue_many(size, [{}])
        assert {(found(queue, i).type, found(queue, i).queue) for i in ids} == {("encodings.größe", "größe")}
        with Worker(queue, queues=["größe"], poll_interval=0.05):
            ended(queue, ids)
        assert all(isinstance(job.type, str) for job in queue.list_jobs(type="encodings.größe"))
        if encoding == "LATIN1":
            for refused in (queue.options(queue="日本"), queue.options(unique_key="日本")):
                with pytest.raises(ValueError, match=r"PostgreSQL refuses a value: .*has no equivalent"):
                    refused.enqueue(echo, text="")
            with pytest.raises(ValueError, match="has no equivalent"):
                queue.enqueue_many("日本", [{}])


def test_bytes_of_another_encoding_in_a_database_that_takes_any_end_no_worker(postgres: Postgres) -> None:
    with encoded(postgres, "SQL_ASCII") as dsn, PostgresStorage(dsn) as storage:
        queue = JobQueue(storage)
        strange, broken, well = (queue.enqueue(echo, text="x", max_retries=0) for _ in range(3))
        with Database(make_conninfo(dsn, client_encoding="SQL_ASCII")) as theirs:
            theirs.rows(r"update dbjobq.job set type = E'gr\xf6\xdfe' where id = %s", strange)
            theirs.rows(r"""update dbjobq.job set data = E'{"text": "gr\xf6\xdfe"}' where id = %s""", broken)
        with Worker(queue, poll_interval=0.05) as worker:
            ended(queue, [well])
            until(lambda: found(queue, broken).status == "failed")
        assert worker.error is None
        assert found(queue, strange).type == r"gr\xf6\xdfe"
        assert len(queue.list_jobs()) == 3


def test_a_bulk_in_a_callers_transaction_is_utf_8_whatever_the_caller_speaks(dsn: str) -> None:
    with PostgresStorage(dsn) as storage, psycopg.connect(dsn, client_encoding="LATIN1") as theirs:
        queue = JobQueue(storage)
        (job_id,) = queue.options(connection=theirs, queue="größe").enqueue_many(size, [{}])
        theirs.commit()
        assert (found(queue, job_id).type, found(queue, job_id).queue) == ("encodings.größe", "größe")


@pytest.mark.parametrize("style", ["German", "SQL, DMY", "Postgres, MDY", "ISO, YMD"])
@pytest.mark.parametrize("whose", ["ours", "a pool of the user's"])
def test_times_are_what_they_are_whatever_the_date_style(dsn: str, database: Database, style: str, whose: str) -> None:
    name = sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))
    for setting, value in {"datestyle": style, "timezone": "Asia/Kolkata", "extra_float_digits": "-15"}.items():
        change = sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
        database.connection.execute(change)
    when = datetime(2031, 5, 4, 3, 2, 1, 123456, UTC)
    with ConnectionPool(dsn, open=True) as pool, PostgresStorage(dsn if whose == "ours" else pool) as storage:
        queue = JobQueue(storage)
        later = queue.options(execute_at=when).enqueue(echo, text="")
        bulk = queue.options(execute_at=when).enqueue_many(echo, [{"text": ""}])
        (delayed,) = queue.options(delay=3600).enqueue_many(echo, [{"text": ""}])
        assert [found(queue, i).execute_at for i in (later, *bulk)] == [when, when]
        due = found(queue, delayed).execute_at
        assert due is not None
        assert abs(due - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=5)
        assert {job.execute_at for job in queue.list_jobs("pending")} == {when, due}
        run_at = "select extract(epoch from run_at)::float8 from dbjobq.scheduled where job_id = %s"
        assert database.value(run_at, bulk[0]) == when.timestamp()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_enqueue_through_a_users_pool_wakes_workers_whatever_its_isolation(
    dsn: str, database: Database, level: str
) -> None:
    """Its snapshot may be older than the remark that somebody sleeps."""
    options = f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
    with ConnectionPool(make_conninfo(dsn, options=options), open=True) as pool, PostgresStorage(pool) as storage:
        queue = JobQueue(storage)
        queue.enqueue(echo, text="")
        database.rows("update dbjobq.queue set wanted = false")  # as such a snapshot may still have it
        with database.notified() as heard:
            queue.enqueue(echo, text="")
        assert heard
