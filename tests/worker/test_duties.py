"""Duties: what any worker does for all, in a thread of its own. One more is a file, a statement, a name in a list."""

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.maintenance.duty import Duty
from dbjobq.maintenance.rescue import Rescue
from dbjobq.storage.postgres import statements
from dbjobq.storage.postgres.worker.pulse import PostgresPulse
from dbjobq.storage.worker_port import Pulse
from tests.storage.database import Database
from tests.support.waiting import ended, until
from tests.worker.conftest import Blocker, Events, Start

TOY_SQL = """
with marked as materialized (
    select ctid as tid from {schema}.toy where number <= %(highest)s limit 10 for update skip locked
)
delete from {schema}.toy where ctid = any (array (select tid from marked)) returning number
"""
"""The file in `storage/sql/` that a duty brings."""


class Toy(Duty):
    """The module in `maintenance/` that a duty is."""

    name = "toy"

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.threads: set[str] = set()

    def every(self, lease: float) -> float:
        return 0.1 * lease

    def once(self, pulse: Pulse) -> int:
        self.threads.add(threading.current_thread().name)
        done = len(pulse.piece("toy", {"highest": 1_000}))
        self.pieces.append(done)
        return done


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[Toy]:
    """All that is added: the duty and its statement; and here a table, of which migrations are not needed."""
    toy, texts = Toy(), statements._all_texts()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr("dbjobq.worker.DUTIES", (Rescue(), toy))

    monkeypatch.setattr(statements, "_all_texts", lambda: {**texts, "toy": TOY_SQL})
    database.rows("create table dbjobq.toy (number int)")
    yield toy
    database.rows("drop table dbjobq.toy")


def test_a_duty_that_is_added_is_done_in_pieces_in_a_thread_of_its_own(
    start: Start, database: Database, toy: Toy
) -> None:
    database.rows("insert into dbjobq.toy select generate_series(1, 25)")
    start(lease=2.0)
    until(lambda: not database.value("select count(*) from dbjobq.toy"), what="the duty")
    until(lambda: toy.pieces[:4] == [10, 10, 5, 0], what="its pieces")
    assert toy.threads == {"dbjobq-toy"}
    database.rows("insert into dbjobq.toy values (1)")
    until(lambda: not database.value("select count(*) from dbjobq.toy"), what="its next turn")


def test_nobody_switches_a_duty_off_and_what_is_locked_is_left_for_the_next_turn(
    start: Start, database: Database, toy: Toy
) -> None:
    database.rows("insert into dbjobq.toy select generate_series(1, 12)")
    with database.connection.transaction():
        database.rows("select from dbjobq.toy where number = 7 for update")
        start(lease=2.0)
        start(lease=2.0)
        until(lambda: sum(toy.pieces) == 11, what="the rest")
    until(lambda: sum(toy.pieces) == 12, what="the one that was locked")


def test_a_duty_that_waits_holds_up_no_heartbeat_and_no_other_duty(
    start: Start, queue: JobQueue, database: Database, toy: Toy, blocker: Blocker, events: Events
) -> None:
    @job
    def holds() -> None:
        blocker.block()

    expires = "select max(expires_at) from dbjobq.worker"
    start(lease=2.0)
    held = queue.enqueue(holds)
    assert blocker.began.wait(60)
    with Database(database.dsn) as other, other.connection.transaction():
        other.rows("lock table dbjobq.toy")
        until(
            lambda: database.value(
                "select count(*) from pg_locks where not granted and relation = 'dbjobq.toy'::regclass"
            ),
            what="the duty's wait",
        )
        seen: set[object] = set()

        def beats() -> int:
            seen.add(database.value(expires))
            return len(seen)

        until(lambda: beats() > 8, what="more heartbeats than a life has")
        dead = database.value(
            "insert into dbjobq.worker (name, expires_at) values ('dead', now() - interval '1 s') returning id"
        )
        lost = queue.enqueue(holds)
        database.rows(
            "with gone as (delete from dbjobq.ready where job_id = %s returning job_id, attempts)"
            " insert into dbjobq.lease (claim, claimed_at, worker, attempts, job_id)"
            " select 1, now(), %s, attempts, job_id from gone",
            lost,
            dead,
        )
        until(lambda: events.jobs("job.rescued") == [lost], what="the rescue")
    blocker.end()
    ended(queue, [held, lost])
    assert not events.of("worker.lease_lost")


def test_a_duty_that_fails_says_so_once_and_tries_again(
    start: Start, database: Database, toy: Toy, events: Events
) -> None:
    database.rows("alter table dbjobq.toy rename to hidden")
    start(lease=2.0)
    until(lambda: events.of("service.broken") or events.of("service.failing"), what="what it says")
    database.rows("alter table dbjobq.hidden rename to toy")
    database.rows("insert into dbjobq.toy values (1)")
    until(lambda: not database.value("select count(*) from dbjobq.toy"), what="the duty")
    assert {vars(record)["service"] for record in events.of("service.failing")} <= {"toy"}


def test_a_duty_has_no_connection_while_there_is_nothing_to_do(
    start: Start, storage: PostgresStorage, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's connections are three: for work, for listening, for its heartbeat."""
    ours = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'dbjobq'"
    storage.close()
    start(lease=1.0)
    until(lambda: database.value(ours) == 3, what="three connections")
    looked, abandoned = threading.Semaphore(0), PostgresPulse.abandoned

    def counted(self: PostgresPulse) -> bool:
        looked.release()
        return abandoned(self)

    monkeypatch.setattr(PostgresPulse, "abandoned", counted)
    for _ in range(8):  # turns
        assert looked.acquire(timeout=60)
        assert database.value(ours) <= 3
