"""Connections that stay open and lead nowhere: each of a worker's is found out, and a slow server is left alone.

Something in between still acknowledges what is sent, so that the kernel sees nothing. Where packets are dropped, it
does: that is tried in tests/chaos, and here for producers.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, StorageUnavailable, job
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from dbjobq.storage.postgres import listening
from dbjobq.storage.postgres.connect import watchdog
from tests.storage.database import Database
from tests.support.faultproxy import FaultProxy, drop_packets, proxied
from tests.support.waiting import ended, until
from tests.worker.conftest import LASTING, Events, Start

OURS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'dbjobq'"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are waited for half a second, not 20; a silent listener is asked after one, not 60."""
    monkeypatch.setattr(watchdog, "ANSWER_PATIENCE", 0.5)
    monkeypatch.setattr(listening, "SILENCE", 1.0)


@pytest.fixture
def way(dsn: str) -> Iterator[tuple[FaultProxy, JobQueue]]:
    """A proxy, and a queue whose storage goes through it."""
    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        yield proxy, JobQueue(storage)


@job(name="silence.hello")
async def hello() -> None: ...


def test_the_listening_connection_of_a_worker_that_sleeps_is_found_out(
    start: Start, queue: JobQueue, way: tuple[FaultProxy, JobQueue], database: Database, events: Events
) -> None:
    """And then that of its session, which it uses again when it listens."""
    proxy, through = way
    worker = start(through, poll_interval=50.0, max_poll_interval=50.0)
    ended(queue, [queue.enqueue(hello)])
    until(lambda: database.value("select bool_and(wanted) from dbjobq.queue"), what="its sleep")
    proxy.strand()
    ended(queue, [queue.enqueue(hello)])
    until(lambda: events.of("listener.restored"))
    assert events.of("listener.lost")
    assert events.of("database.lost")
    ended(queue, [queue.enqueue(hello)])
    worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["def", "async"])
def test_the_connections_of_a_worker_that_works_are_found_out_before_its_lease_is_over(
    start: Start, queue: JobQueue, way: tuple[FaultProxy, JobQueue], events: Events, kind: str
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def work() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    @job
    async def awork() -> str:
        began.set()
        await asyncio.sleep(6)
        return "kept"

    proxy, through = way
    worker = start(through, lease=5.0)
    job_id = queue.enqueue(work if kind == "def" else awork)
    assert began.wait(60)
    start(lease=5.0)
    time.sleep(1.0)  # so that heartbeats have their connection
    proxy.strand()
    time.sleep(5.0)  # a lease
    go_on.set()
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.attempts, found.result, found.worker_id) == (0, "kept", worker.worker_id)
    assert events.of("service.failing")
    worker.stop()


def test_a_server_that_waits_for_a_lock_is_not_given_up(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def work() -> str:
        began.set()
        go_on.wait(LASTING)
        return "kept"

    start(lease=30.0)
    job_id = queue.enqueue(work)
    assert began.wait(60)
    with database.connection.transaction():
        database.rows("select from dbjobq.lease for update")
        before = database.value(OURS)
        go_on.set()
        time.sleep(3.0)  # six times the patience
        assert database.value(OURS) <= before + 2  # nobody comes again while another waits there
    ended(queue, [job_id])
    assert not events.of("database.lost")


# Producers. They wait in the caller's own thread or task, so it is the kernel that sets the bound.


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("iptables") is None, reason="needs root and iptables")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_producer_in_a_black_hole_is_told_within_a_minute_and_works_again_afterwards(kind: str) -> None:
    with EmbeddedPostgres(tcp=True) as server:
        address = server.dsn(tcp=True)
        migrate(address)
        port = int(str(conninfo_to_dict(address)["port"]))
        with PostgresStorage(address) as storage:

            def produce() -> None:
                queue = JobQueue(storage)
                queue.enqueue(hello)
                with drop_packets(port), pytest.raises(StorageUnavailable):
                    queue.enqueue(hello)
                queue.enqueue(hello)

            async def aproduce() -> None:
                async with AsyncJobQueue(storage) as queue:
                    await queue.enqueue(hello)
                    with drop_packets(port), pytest.raises(StorageUnavailable):
                        await queue.enqueue(hello)
                    await queue.enqueue(hello)

            before = time.monotonic()
            if kind == "sync":
                produce()
            else:
                asyncio.run(aproduce())
            assert time.monotonic() - before < 60  # 25
