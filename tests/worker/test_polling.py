"""Adaptive polling, exactly."""

# pyright: reportPrivateUsage=false

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage, Retry, Worker, job
from dbjobq.runtime.backoff import PollBackoff
from dbjobq.runtime.poller import Poller
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.values import Answer, Exchange, Idle
from tests.storage.database import Database
from tests.support.faultproxy import proxied
from tests.support.server import Databases
from tests.support.waiting import ended, heard, lasting, settled, until
from tests.worker.conftest import LASTING, LISTENERS, Events, Start

LONG: dict[str, Any] = {"poll_interval": 200.0, "max_poll_interval": 300.0}


def gaps(moments: list[float], since: int = 0) -> list[float]:
    """The seconds between claims, from one of them on."""
    return [b - a for a, b in zip(moments[since:], moments[since + 1 :], strict=False)]


class Waits:
    """The waits between claims: how long they were to be, and how long they were at least."""

    def __init__(self, claims: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self._claims, self._meant, following = claims, dict[int, float](), PollBackoff.next

        def noted(backoff: PollBackoff) -> float:
            wait = self._meant[len(claims) - 1] = following(backoff)
            return wait

        monkeypatch.setattr(PollBackoff, "next", noted)

    def last(self) -> float:
        """How long the wait of the moment is to be; 0 while there is none."""
        return self._meant.get(len(self._claims) - 1, 0.0)

    def check(self, begin: Callable[[], int], expected: list[float]) -> None:
        """Check those from the claim on that `begin` returns.

        What comes late says something about the machine; and of three times one must be so, since it may come too late
        to be the claim in question.
        """
        tried: list[list[tuple[float | None, float]]] = []
        for _ in range(3):
            since = begin()
            until(lambda since=since: len(self._claims) > since + len(expected))  # type: ignore[misc]
            meant = [self._meant.get(since + n) for n in range(len(expected))]
            found = gaps(self._claims, since)[: len(expected)]
            if meant == expected and all(f >= e - 0.01 for f, e in zip(found, expected, strict=True)):
                return
            tried.append(list(zip(meant, found, strict=True)))
        raise AssertionError(f"waits {tried}, expected {expected}")


@pytest.fixture
def waits(claims: list[float], monkeypatch: pytest.MonkeyPatch) -> Waits:
    """The waits of workers of this process."""
    return Waits(claims, monkeypatch)


# How long.


@pytest.mark.every_storage
def test_on_an_empty_queue_the_waits_double_from_twice_the_first_interval_to_the_longest(
    claims: list[float], start: Start, waits: Waits
) -> None:
    def begin() -> int:
        for worker in workers:
            worker.stop()
        before = len(claims)
        workers.append(start(poll_interval=0.05, max_poll_interval=0.4))
        return before

    workers: list[Worker] = []
    waits.check(begin, [0.1, 0.2, 0.4, 0.4, 0.4])


@pytest.mark.every_storage
def test_when_the_queue_runs_dry_after_work_the_first_wait_is_the_first_interval_again(
    claims: list[float], start: Start, queue: JobQueue, waits: Waits
) -> None:
    @job
    def hello() -> None: ...

    def begin() -> int:
        ended(queue, [queue.enqueue(hello)])
        return len(claims) - 1

    start(poll_interval=0.1, max_poll_interval=0.5)
    until(lambda: len(claims) > 3)
    waits.check(begin, [0.1, 0.2, 0.4, 0.5])


@pytest.mark.every_storage
def test_while_there_are_due_jobs_the_next_claim_follows_at_once(
    claims: list[float], start: Start, queue: JobQueue
) -> None:
    @job
    def some_work(n: int) -> None:
        time.sleep(0.03)

    ids = queue.enqueue_many(some_work, [{"n": n} for n in range(10)])
    start(**LONG)
    ended(queue, ids)


def test_a_notify_ends_the_wait_and_resets_the_interval(
    claims: list[float], start: Start, database: Database, waits: Waits
) -> None:
    number = database.value("select id from dbjobq.queue where name = 'default'")

    def begin() -> int:
        asleep = until(lambda: waits.last() >= 1.6 and len(claims))  # time enough until the next
        database.rows("select pg_notify('dbjobq', %s)", f"w{number}")
        until(lambda: len(claims) > asleep)
        return asleep

    start(poll_interval=0.1, max_poll_interval=LASTING)
    waits.check(begin, [0.1, 0.2, 0.4])


def test_the_longest_interval_is_never_below_the_first(queue: JobQueue) -> None:
    assert Worker(queue, poll_interval=20.0).config.max_poll_interval == 20.0


# What ends a wait.


@pytest.mark.every_storage
def test_an_idle_worker_starts_a_job_at_once(start: Start, queue: JobQueue) -> None:
    @job
    async def hello() -> None: ...

    start(**LONG)
    for _ in range(5):
        ended(queue, [queue.enqueue(hello)])


@pytest.mark.slow
@pytest.mark.every_storage
def test_an_idle_worker_starts_a_job_within_100_ms_of_its_enqueue(start: Start, queue: JobQueue) -> None:
    moments: list[float] = []

    @job
    async def mark() -> None:
        moments.append(time.monotonic())

    start(**LONG)
    ended(queue, [queue.enqueue(mark)])
    late: list[float] = []
    for n in range(10):
        before = time.monotonic()
        queue.enqueue(mark)
        until(lambda n=n: len(moments) > n + 1)  # type: ignore[misc]
        late.append(moments[-1] - before)
    assert statistics.median(late) < 0.1, late
    assert max(late) < 5.0, late


@pytest.mark.every_storage
def test_a_delayed_job_starts_when_it_is_due(start: Start, queue: JobQueue) -> None:
    moments: dict[int, float] = {}

    @job
    async def mark(n: int) -> None:
        moments[n] = time.monotonic()

    start(**LONG)
    ended(queue, [queue.enqueue(mark, n=-1)])
    before = time.monotonic()
    delays = [0.6, 0.3, 0.9]
    for n, delay in enumerate(delays):
        queue.options(delay=delay).enqueue(mark, n)
    until(lambda: len(moments) == 4)
    for n, delay in enumerate(delays):
        assert delay <= moments[n] - before, moments


@pytest.mark.every_storage
def test_a_job_that_was_delayed_before_the_worker_started_starts_when_it_is_due(start: Start, queue: JobQueue) -> None:
    moments: list[float] = []

    @job
    async def mark() -> None:
        moments.append(time.monotonic())

    before = time.monotonic()
    queue.options(delay=1.0).enqueue(mark)
    start(**LONG)
    until(lambda: moments)
    assert moments[0] - before >= 1.0


@pytest.mark.every_storage
def test_a_retry_starts_when_it_is_due(start: Start, queue: JobQueue) -> None:
    moments: list[float] = []

    @job(max_retries=5)
    async def again() -> None:
        moments.append(time.monotonic())
        if len(moments) < 4:
            raise Retry(after=0.3)

    start(**LONG)
    ended(queue, [queue.enqueue(again)])
    assert all(gap >= 0.3 for gap in gaps(moments)), gaps(moments)


@pytest.mark.every_storage
def test_a_delayed_job_is_started_when_due_by_the_worker_that_serves_its_queue_whoever_sees_it_first(
    start: Start, queue: JobQueue
) -> None:
    @job
    async def hello() -> None: ...

    ids = [queue.options(queue="b", delay=0.8 + 0.15 * n).enqueue(hello) for n in range(8)]
    for name in ("a", "a", "b", "c"):
        start(queues=[name], **LONG)
    ended(queue, ids)


def test_a_delayed_job_due_while_its_promoter_is_busy_is_started_by_an_idle_worker(
    start: Start, queue: JobQueue
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    @job
    def hello() -> None: ...

    start(**LONG)
    start(**LONG)
    held = queue.enqueue(hold)
    assert began.wait(60)
    ended(queue, [queue.options(delay=0.3).enqueue(hello)])
    go_on.set()
    ended(queue, [held])


@pytest.mark.every_storage
def test_a_job_in_a_queue_nobody_has_heard_of_reaches_an_idle_worker_of_all_queues_at_once(
    start: Start, queue: JobQueue, claims: list[float]
) -> None:
    @job
    async def hello() -> None: ...

    start(**LONG)
    until(lambda: claims)
    for n in range(5):
        ended(queue, [queue.options(queue=f"new {n}").enqueue(hello)])


def test_a_job_written_in_a_transaction_that_was_open_when_the_worker_fell_asleep_starts_soon_after_its_commit(
    start: Start, queue: JobQueue, database: Database, dsn: str, claims: list[float]
) -> None:
    @job
    async def hello() -> None: ...

    database.rows("update dbjobq.queue set wanted = false")  # as when all workers are busy
    with psycopg.connect(dsn) as connection:
        job_id = queue.options(connection=connection).enqueue(hello)
        start(**LONG)
        until(lambda: len(claims) > 2)
        connection.commit()
    ended(queue, [job_id])


@pytest.mark.parametrize("look", [1, 2, 3, 4])
def test_a_transaction_that_commits_between_a_claim_and_the_look_for_open_ones_is_not_missed(
    start: Start, queue: JobQueue, database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    done = threading.Event()
    original, looks = PostgresSession.idle, list[int]()

    @job
    async def mark() -> None:
        done.set()

    database.rows("update dbjobq.queue set wanted = false")
    with psycopg.connect(dsn) as connection:
        queue.options(connection=connection).enqueue(mark)

        async def idle(self: PostgresSession) -> Idle:
            looks.append(1)
            if len(looks) == look:
                connection.commit()
            return await original(self)

        monkeypatch.setattr(PostgresSession, "idle", idle)
        start(**LONG)
        assert done.wait(60)


def test_a_notification_that_comes_while_the_answer_to_a_claim_is_under_way_is_not_forgotten(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim could not see that job yet: the notification stands for it, and nothing else before the next poll."""
    begun, done, told = threading.Event(), threading.Event(), threading.Event()
    step, wake, slipped = PostgresSession.step, Poller.wake, list[str]()

    @job
    async def mark() -> None:
        done.set() if slipped else begun.set()

    def woken(self: Poller) -> None:
        wake(self)
        told.set()

    async def claims(self: PostgresSession, exchange: Exchange) -> Answer:
        answer = await step(self, exchange)
        if begun.is_set() and exchange.want and not answer.claims and not slipped:
            told.clear()
            slipped.append(await asyncio.to_thread(queue.enqueue, mark))
            await heard(told)
        return answer

    monkeypatch.setattr(PostgresSession, "step", claims)
    monkeypatch.setattr(Poller, "wake", woken)
    start(**LONG)
    queue.enqueue(mark)
    assert done.wait(60)


def test_a_worker_that_waits_for_an_open_transaction_does_not_spin(
    start: Start, queue: JobQueue, database: Database, dsn: str, claims: list[float]
) -> None:
    @job
    async def hello() -> None: ...

    database.rows("update dbjobq.queue set wanted = false")
    with psycopg.connect(dsn) as connection:
        queue.options(connection=connection).enqueue(hello)
        start(**LONG)
        until(lambda: len(claims) > 1)
        time.sleep(1.5)
        assert len(claims) < 11 * (1.5 + time.monotonic() - claims[0])
        connection.rollback()


def test_while_a_worker_is_busy_no_enqueue_notifies_and_once_it_sleeps_every_one_does(
    start: Start, queue: JobQueue, database: Database
) -> None:
    pace = [0.03]

    @job
    async def some_work() -> None:
        await asyncio.sleep(pace[0])

    def produce() -> None:
        for _ in range(25):
            queue.enqueue(some_work)

    def wanted() -> bool:
        return bool(database.value("select wanted from dbjobq.queue where name = 'default'"))

    queue.enqueue_many(some_work, ({} for _ in range(200)))
    start(concurrency=2, **LONG)
    until(lambda: not wanted())
    with database.notified() as heard:
        with ThreadPoolExecutor(16) as producers:
            for produced in [producers.submit(produce) for _ in range(16)]:
                produced.result()
        assert queue.count("pending") > 100  # so it has not slept
    assert heard == []
    pace[0] = 0.0
    settled(queue)
    until(wanted)
    for _ in range(5):
        with database.notified() as heard:
            ended(queue, [queue.enqueue(some_work)])
        assert len(heard) == 1


# Which queues.


@pytest.mark.every_storage
def test_the_queues_are_served_in_the_order_given(start: Start, queue: JobQueue) -> None:
    order: list[str] = []

    @job
    def note(word: str) -> None:
        order.append(word)

    ids = [
        queue.options(queue=name, priority=priority).enqueue(note, name)
        for name, priority in [("a", 9), ("a", 9), ("b", 1), ("b", 1), ("c", 20)]
    ]
    start(queues=["b", "c", "a"])
    ended(queue, ids)
    assert order == ["b", "b", "c", "a", "a"]


@pytest.mark.every_storage
def test_a_queue_that_is_not_served_is_left_alone(start: Start, queue: JobQueue) -> None:
    @job
    def hello() -> None: ...

    other = queue.options(queue="other").enqueue(hello)
    delayed = queue.options(queue="other", delay=0.1).enqueue(hello)
    start(queues=["served"])
    ended(queue, [queue.options(queue="served").enqueue(hello)])
    lasting(lambda: {j.id for j in queue.get_pending_jobs()} == {other, delayed}, 0.8)


def test_one_queue_may_be_named_as_a_string(start: Start, queue: JobQueue) -> None:
    @job
    def hello() -> None: ...

    start(queues="served")
    ended(queue, [queue.options(queue="served").enqueue(hello)])


@pytest.mark.every_storage
def test_higher_priority_runs_first_and_equal_ones_in_order(start: Start, queue: JobQueue) -> None:
    order: list[int] = []

    @job
    def note(n: int) -> None:
        order.append(n)

    ids = [queue.enqueue(note, n=n, priority=p) for n, p in enumerate([5, 1, 9, 5, 9, 1])]
    start()
    ended(queue, ids)
    assert order == [2, 4, 0, 3, 1, 5]


# A listening connection that is lost.


def terminate(database: Database, pids: list[int]) -> None:
    database.rows("select pg_terminate_backend(pid) from unnest(%s::int[]) as pid", pids)


def test_losing_the_listening_connection_costs_no_job_and_it_is_restored_with_a_claim_at_once(
    start: Start,
    queue: JobQueue,
    database: Database,
    listeners: Callable[[], list[int]],
    claims: list[float],
    events: Events,
) -> None:
    @job
    def hello() -> None: ...

    worker = start(**LONG)
    until(lambda: len(listeners()) == 1 and claims)
    # As if it had been enqueued while nobody listened: no notification goes with it.
    database.rows("update dbjobq.queue set wanted = false")
    job_id = queue.enqueue(hello)
    terminate(database, listeners())
    ended(queue, [job_id])
    until(lambda: events.of("listener.restored"))
    assert len(events.of("listener.lost")) == len(events.of("listener.restored")) == 1
    ended(queue, [queue.enqueue(hello)])
    assert worker._worker_thread.is_alive()


def test_a_listener_that_is_lost_again_and_again_does_not_stop_the_worker(
    start: Start, queue: JobQueue, database: Database, listeners: Callable[[], list[int]]
) -> None:
    @job
    def hello() -> None: ...

    start()
    ids: list[str] = []
    for _ in range(5):
        terminate(database, until(listeners))
        ids.append(queue.enqueue(hello))
    ended(queue, ids)


@pytest.mark.parametrize("fault", ["refuse", "blackhole"])
def test_a_worker_that_cannot_listen_polls(
    start: Start, queue: JobQueue, dsn: str, fault: str, events: Events, claims: list[float]
) -> None:
    @job
    def hello() -> None: ...

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(dsn, listen_conninfo=through) as storage:
        start(JobQueue(storage), poll_interval=0.1, max_poll_interval=0.4)
        ended(queue, [queue.enqueue(hello)])
        getattr(proxy, fault)()
        ids: list[str] = []
        for _ in range(3):
            ids.append(queue.enqueue(hello))
            ended(queue, ids)
        proxy.heal()


def test_a_worker_that_never_could_listen_starts_and_polls(start: Start, queue: JobQueue, dsn: str) -> None:
    @job
    def hello() -> None: ...

    nobody = make_conninfo(dsn, host="127.0.0.1", port=1)
    with PostgresStorage(dsn, listen_conninfo=nobody) as storage:
        start(JobQueue(storage), poll_interval=0.1, max_poll_interval=0.4)
        ended(queue, [queue.enqueue(hello)])


def test_a_listener_that_hears_nothing_is_told_of_once_and_the_worker_polls_and_asks_for_cancelled_jobs(
    start: Start, queue: JobQueue, dsn: str, databases: Databases, events: Events
) -> None:
    told = threading.Event()

    @job
    def hello() -> None: ...

    @job
    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            told.set()

    # LISTEN is accepted in any database, and as with a pooler nothing of what is notified in ours arrives.
    with databases.fresh("template0") as elsewhere, PostgresStorage(dsn, listen_conninfo=elsewhere) as storage:
        start(JobQueue(storage), poll_interval=0.1, max_poll_interval=0.4)
        ended(queue, [queue.enqueue(hello)])
        until(lambda: events.of("listener.deaf"))
        with Database(elsewhere) as there:
            terminate(there, [row[0] for row in there.rows(LISTENERS)])
        until(lambda: events.of("listener.restored"))
        stuck = queue.enqueue(long)
        until(lambda: queue.count("running"))
        queue.cancel(stuck)
        assert told.wait(60)
    assert len(events.of("listener.deaf")) == 1
    assert "--listen-dsn" in vars(events.of("listener.deaf")[0])["error"]
