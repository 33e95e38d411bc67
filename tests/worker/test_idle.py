"""What workers with nothing to do cost the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from tests.support.meter import Meter, metered
from tests.support.waiting import ended, lasting

pytestmark = pytest.mark.slow
SECONDS = 30.0
MANY = 200


@pytest.fixture
def meter() -> Iterator[Meter]:
    with metered(max_connections=str(MANY * 3 + 50)) as meter:  # to work, to listen, to beat
        yield meter


@pytest.mark.parametrize("worked", [False, True], ids=["never worked", "has worked"])
def test_an_idle_worker_sends_less_than_a_statement_in_two_seconds_and_writes_no_wal(
    meter: Meter, worked: bool
) -> None:
    @job
    def hello() -> None: ...

    with PostgresStorage(meter.dsn) as storage:
        queue = JobQueue(storage)
        with Worker(queue):
            if worked:
                ended(queue, [queue.enqueue(hello) for _ in range(50)])
            time.sleep(16.0)  # until it polls as seldom as it ever does
            statements, wal = len(meter.statements()), meter.wal()
            time.sleep(SECONDS)
            sent = len(meter.statements()) - statements
            assert meter.wal() - wal < 1000
            assert sent / SECONDS < 0.5, f"{sent} statements in {SECONDS} s"


def test_two_hundred_idle_workers_are_no_load_and_one_of_them_takes_a_job(meter: Meter) -> None:
    ran: list[float] = []

    @job
    async def note() -> None:
        ran.append(time.monotonic())

    with ExitStack() as stack:
        queue = JobQueue(stack.enter_context(PostgresStorage(meter.dsn)))
        for _ in range(MANY):
            stack.enter_context(Worker(queue))
        time.sleep(20.0)
        statements, wal, cpu = len(meter.statements()), meter.wal(), meter.cpu()
        time.sleep(SECONDS)
        assert (len(meter.statements()) - statements) / SECONDS / MANY < 0.5  # 0.33
        assert meter.wal() - wal < 1000
        assert (meter.cpu() - cpu) / SECONDS < 0.05  # 0.011 of one core
        # A notification goes to all who listen: each looks at once, and then again after 1 and 2 seconds.
        statements, cpu = len(meter.statements()), meter.cpu()
        ended(queue, [queue.enqueue(note)])
        lasting(lambda: len(ran) == 1, 4.0, "one run of the job")
        assert len(meter.statements()) - statements < 10 * MANY  # 6.5
        assert meter.cpu() - cpu < 0.005 * MANY  # 0.0008 seconds each
