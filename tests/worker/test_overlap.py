"""Under load the database is at the next batch while the slots work off the one in hand; and there is no third."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import threading

import pytest
from psycopg import waiting

from dbjobq import JobQueue, job
from dbjobq.runtime import pace
from dbjobq.runtime.pace import BATCH
from dbjobq.runtime.threads import Chunk, Threads
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.values import Answer, Exchange
from tests.storage.database import Database
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Start

LEASES = "select count(*) from dbjobq.lease"
JOBS = 6 * BATCH
MIDDLE = 2 * BATCH + BATCH // 2
"""The number of a job in a full batch, long after the first claims, which are small."""


pytestmark = pytest.mark.skipif(
    not hasattr(waiting, "MAX_BUSY_TIME"),
    reason="this psycopg gives way to the event loop at each statement of a pipeline",
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are believed to be short, whatever they take on this machine."""

    def learn_nothing(*_: object) -> None: ...

    monkeypatch.setattr(pace, "GUESS", 0.00001)
    monkeypatch.setattr(pace.Pace, "took", learn_nothing)


def rows(count: int) -> list[dict[str, int]]:
    return [{"n": n} for n in range(count)]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("concurrency", [1, 10])
def test_a_claim_is_at_the_database_before_the_slots_begin_with_the_batch_in_hand_and_no_third_is_held(
    start: Start, queue: JobQueue, database: Database, concurrency: int
) -> None:
    held: list[int] = []

    @job
    async def hop(n: int) -> None:
        if n == MIDDLE:  # the event loop is blocked: what has not been sent by now never is
            until(lambda: database.value(LEASES) == 2 * BATCH)
        if n % 100 == 0:
            held.append(database.value(LEASES))

    ids = queue.enqueue_many(hop, rows(JOBS))
    start(concurrency=concurrency)
    ended(queue, ids)
    assert max(held) <= 2 * BATCH


@pytest.mark.usefixtures("short")
def test_threads_work_off_a_batch_while_the_database_is_at_the_next(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = threading.Event()
    met: list[bool] = []
    original = PostgresSession.step

    async def step(self: PostgresSession, exchange: Exchange) -> Answer:
        under_way.set()
        try:
            return await original(self, exchange)
        finally:
            under_way.clear()

    @job
    def hop(n: int) -> None:
        if n == MIDDLE:
            met.append(under_way.wait(60))  # holds up its thread alone: the loop may send whatever it likes

    monkeypatch.setattr(PostgresSession, "step", step)
    ids = queue.enqueue_many(hop, rows(JOBS))
    start(concurrency=1)
    ended(queue, ids)
    assert met == [True]


@pytest.mark.usefixtures("short")
def test_what_is_held_besides_the_running_job_goes_back_when_it_does_not_start_soon(
    start: Start, queue: JobQueue, database: Database, returned: list[str]
) -> None:
    began, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    @job
    async def hop(n: int) -> None:
        order.append(n)
        if n == MIDDLE:
            until(lambda: database.value(LEASES) == 2 * BATCH)
            began.set()
            await heard(go_on)

    ids = queue.enqueue_many(hop, rows(JOBS))
    start(concurrency=1, poll_interval=LASTING, max_poll_interval=LASTING)
    assert began.wait(60)
    until(lambda: queue.count("running") == 1)
    assert len(returned) > BATCH
    start()
    ended(queue, ids[:MIDDLE] + ids[MIDDLE + 1 :])
    go_on.set()
    ended(queue, ids)
    assert {found.attempts for found in queue.list_jobs()} == {0}
    assert sorted(order) == list(range(JOBS))


@pytest.mark.usefixtures("short")
def test_a_batch_that_has_not_begun_goes_back_when_the_worker_stops(
    start: Start, queue: JobQueue, database: Database
) -> None:
    began, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    @job
    async def hop(n: int) -> None:
        ran.append(n)
        if n == MIDDLE:
            until(lambda: database.value(LEASES) == 2 * BATCH)
            began.set()
            go_on.wait(LASTING)  # blocks the loop: nothing happens before the worker is told to stop
            await asyncio.sleep(0)

    queue.enqueue_many(hop, rows(JOBS))
    worker = start(concurrency=1)
    assert began.wait(60)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    until(lambda: worker._stopping)
    go_on.set()
    stopping.join(60)
    assert queue.count("running") == 0
    assert MIDDLE < len(ran) <= 3 * BATCH
    assert queue.count("completed") == len(ran)
    assert queue.count("pending") == JOBS - len(ran)
    assert {found.attempts for found in queue.list_jobs("pending")} == {0}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", ["def", "async"])
def test_jobs_start_in_the_order_of_their_priorities(start: Start, queue: JobQueue, kind: str) -> None:
    order: list[int] = []

    @job
    def hop(n: int) -> None:
        order.append(n)

    @job
    async def ahop(n: int) -> None:
        order.append(n)

    ids: list[str] = []
    for priority in (2, 9, 5):
        ids += queue.options(priority=priority).enqueue_many(
            hop if kind == "def" else ahop, [{"n": -priority} for _ in range(BATCH + 100)]
        )
    start(concurrency=1)
    ended(queue, ids)
    assert order == sorted(order)


def test_short_def_jobs_share_a_threads_turn_however_many_slots_there_are(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job takes is not what it waits for its thread, while a hundred threads wait for one interpreter."""
    chunks: list[int] = []
    original = Threads.submit

    def submit(self: Threads, chunk: Chunk) -> RuntimeError | None:
        chunks.append(len(chunk.claims))
        return original(self, chunk)

    @job
    def hop(n: int) -> None: ...

    monkeypatch.setattr(Threads, "submit", submit)
    ids = queue.enqueue_many(hop, rows(JOBS))
    start(concurrency=100)
    ended(queue, ids)
    assert len(chunks) < JOBS / 4
