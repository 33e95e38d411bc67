"""Nothing that can take long stands between two heartbeats, and no answer ends a life that it is not about."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.runtime.liveness import heartbeat
from dbjobq.runtime.liveness.heartbeat import Heartbeat
from dbjobq.runtime.liveness.inbox import Inbox
from dbjobq.runtime.liveness.states import Fate
from dbjobq.runtime.trust import TTL, TrustWindow, now
from dbjobq.schema import migrate
from dbjobq.storage.postgres.connect import watchdog
from dbjobq.storage.postgres.worker import pulse
from tests.storage.database import Database
from tests.support.faultproxy import proxied
from tests.support.looking import result_of
from tests.support.waiting import until
from tests.worker.conftest import LASTING, Events, Start

LEASE = 3.0
BEATS = 8
"""More than a life lasts for: one that is not renewed is over by then."""

EXPIRES = "select max(expires_at) from dbjobq.worker where id = (select worker from dbjobq.lease where job_id = %s)"
DEAD = "insert into dbjobq.worker (name, expires_at) values ('dead', now() - interval '1 s') returning id"
ABANDON = """
    with gone as (delete from dbjobq.ready returning job_id, attempts)
    insert into dbjobq.lease (claim, claimed_at, worker, attempts, job_id)
    select 1, now(), %s, attempts, job_id from gone
"""
STUCK = "insert into dbjobq.queue (name) select 'x' || random() || pg_notify('x', '')::text"
ABANDONED = "select count(*) from dbjobq.lease where worker = %s"


@pytest.fixture
def own() -> Iterator[str]:
    """A server of its own, since a standby is awaited there that never comes."""
    with EmbeddedPostgres() as server:
        migrate(server.dsn())
        yield server.dsn()


class Held:
    """A job that runs on a worker until it is told to end."""

    def __init__(self, queue: JobQueue, start: Callable[..., Worker], **settings: Any) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

        @job(name="beats.hold", max_retries=0)
        def hold() -> str:
            self.began.set()
            self.go_on.wait(3 * LASTING)
            return "kept"

        self.id = queue.options(queue="mine").enqueue(hold)
        self.worker = start(**{"lease": LEASE, "queues": ["mine"], **settings})
        assert self.began.wait(LASTING)

    def beats(self, database: Database, times: int = BEATS) -> None:
        """Wait for so many heartbeats."""
        seen: set[object] = set()

        def enough() -> bool:
            seen.add(database.value(EXPIRES, self.id))
            return len(seen) > times

        until(enough, what="heartbeats")


def test_heartbeats_go_on_while_a_rescue_waits(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    """For the many rows of a dead worker, or a lock; here for a lock that nothing but a rescue needs."""
    held = Held(queue, start)
    queue.enqueue("lost")
    dead = database.value(DEAD)
    with database.connection.transaction():
        database.rows("lock table dbjobq.failure")
        database.rows(ABANDON, dead)
    with database.connection.transaction():
        database.rows("lock table dbjobq.failure")
        waits = "select count(*) from pg_locks where not granted and relation = 'dbjobq.failure'::regclass"
        until(lambda: database.value(waits), what="the rescue")
        held.beats(database)
    held.go_on.set()
    assert result_of(queue, held.id) == "kept"
    until(lambda: not database.value(ABANDONED, dead), what="the rescue")
    assert not events.of("worker.lease_lost")


@pytest.mark.slow
def test_a_commit_that_waits_for_a_standby_with_the_lock_of_notify_takes_no_workers_lease(
    start: Start, own: str, events: Events
) -> None:
    """A rescue that would wake somebody waits for that lock, and so do results of jobs that go back."""
    with PostgresStorage(own) as storage, Database(own) as database, Database(own) as commits:
        queue = JobQueue(storage)
        held = Held(queue, partial(start, queue))
        queue.enqueue("lost")
        dead = database.value(DEAD)
        database.rows("alter system set synchronous_standby_names = 'nobody'")
        database.rows("select pg_reload_conf()")
        until(lambda: commits.value("show synchronous_standby_names") == "nobody")
        commits.rows("set synchronous_commit = on")
        waiting = threading.Event()

        def commit_until_one_waits() -> None:  # the first may come before the checkpointer has read the setting
            while not waiting.is_set():
                commits.rows(STUCK)

        stuck = threading.Thread(target=commit_until_one_waits)
        stuck.start()
        syncing = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        until(lambda: database.value(syncing), what="the wait for the standby")
        waiting.set()
        database.rows("set synchronous_commit = off")
        database.rows("update dbjobq.queue set wanted = true")
        database.rows(ABANDON, dead)
        waits = "select count(*) from pg_locks where not granted and locktype = 'object'"
        until(lambda: database.value(waits), what="the rescue's wait for the lock of NOTIFY")
        held.beats(database)
        database.rows("alter system reset synchronous_standby_names")
        database.rows("select pg_reload_conf()")
        stuck.join(60)
        held.go_on.set()
        assert result_of(queue, held.id) == "kept"
        until(lambda: not database.value(ABANDONED, dead), what="the rescue")
        assert not events.of("worker.lease_lost")


def test_many_leases_are_rescued_in_pieces(storage: PostgresStorage, queue: JobQueue, database: Database) -> None:
    queue.enqueue_many("lost", ({} for _ in range(1_200)))
    database.rows(ABANDON, database.value(DEAD))
    rescuer = storage.session("rescuer", None, 30.0).pulse()
    assert rescuer.abandoned()
    assert [len(rescuer.rescue()) for _ in range(4)] == [500, 500, 200, 0]
    assert not rescuer.abandoned()
    rescuer.close()


@pytest.mark.slow
def test_a_frozen_connection_costs_no_lease(  # noqa: PLR0917 - fixtures
    start: Start, queue: JobQueue, dsn: str, database: Database, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes back over those that are open; a new one works at once."""
    monkeypatch.setattr(watchdog, "ANSWER_PATIENCE", 1e9)
    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        held = Held(queue, partial(start, JobQueue(storage)), lease=6.0)
        held.beats(database, 1)
        proxy.strand()
        held.beats(database, 6)
        held.go_on.set()
        held.worker.hasten()
        held.worker.stop()
    assert events.of("service.failing")
    assert not events.of("job.fenced")
    assert not events.of("worker.lease_lost")


@pytest.mark.parametrize("lease", [2.0, 30.0, 300.0])
def test_an_answer_is_given_up_while_there_is_time_for_another_heartbeat(lease: float) -> None:
    life = lease * TTL
    until_next = lease * heartbeat.BEAT
    given_up = life * pulse.ANSWERED
    again = given_up + min(heartbeat.LONGEST_BEAT_PAUSE, lease * heartbeat.BEAT / 2)
    assert until_next + again + given_up / 2 < life * 0.98
    assert until_next + life * pulse.ANSWERED_BY_A_POOLER < life * 0.98
    assert until_next + min(watchdog.ANSWER_PATIENCE, life * watchdog.ANSWER_SHARE) * 1.5 < life


@pytest.mark.parametrize("alive", [True, False])
def test_an_answer_about_an_earlier_life_says_nothing_about_this_one(alive: bool) -> None:
    """It was on its way while the worker was registered anew."""
    lease = TrustWindow(30.0)
    lease.begin(now() - 25.0)
    lapsed: list[bool] = []

    def beat(_: float) -> bool:
        lease.begin(now() - 10.0)
        return alive

    beating = Heartbeat(
        SimpleNamespace(beat=beat),  # type: ignore[arg-type]
        lease,
        Inbox(),
        SimpleNamespace(any=True),  # type: ignore[arg-type]
        SimpleNamespace(hears_others=True),  # pyright: ignore[reportArgumentType]
        Fate(lambda: None),
        SimpleNamespace(call=lambda _: lapsed.append(True)),  # type: ignore[arg-type]
        SimpleNamespace(ring=None),  # type: ignore[arg-type]
        seconds=30.0,
    )
    beating._beat()
    assert lapsed == []
    assert lease.life == 2
    assert 8.0 < lease.left() < 10.0
