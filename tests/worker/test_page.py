"""The page on `Worker`, statement by statement, in its order."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbjobq import AsyncJobQueue, BaseStorage, Job, JobQueue, PostgresStorage, Worker, job
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Start

pytestmark = pytest.mark.every_storage

ROOT = Path(__file__).parents[2]


# Constructor.


def test_the_polling_intervals_are_1_and_10_seconds_unless_given(queue: JobQueue) -> None:
    worker = Worker(queue)
    assert (worker.config.poll_interval, worker.config.max_poll_interval) == (1.0, 10.0)
    worker = Worker(queue, 0.5, 5.0)
    assert (worker.config.poll_interval, worker.config.max_poll_interval) == (0.5, 5.0)
    worker = Worker(job_queue=queue, poll_interval=2.0, max_poll_interval=60.0)
    assert (worker.config.poll_interval, worker.config.max_poll_interval) == (2.0, 60.0)


def test_the_other_settings_have_the_defaults_of_the_contract(queue: JobQueue) -> None:
    config = Worker(queue).config
    assert (config.concurrency, config.queues, config.lease, config.shutdown_timeout, config.imports) == (
        1,
        None,
        30.0,
        30.0,
        (),
    )


def test_the_other_settings_go_by_name_alone(queue: JobQueue) -> None:
    with pytest.raises(TypeError):
        Worker(queue, 1.0, 10.0, 4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"poll_interval": 0}, ValueError, "poll_interval=0"),
        ({"poll_interval": -1.0}, ValueError, "poll_interval=-1"),
        ({"poll_interval": float("nan")}, ValueError, "poll_interval=nan"),
        ({"poll_interval": "1"}, TypeError, "poll_interval='1'"),
        ({"max_poll_interval": 0}, ValueError, "max_poll_interval=0"),
        ({"concurrency": 0}, ValueError, "concurrency=0"),
        ({"concurrency": 1.5}, TypeError, "concurrency=1.5"),
        ({"concurrency": True}, TypeError, "concurrency=True"),
        ({"queues": []}, ValueError, r"queues=\[\]"),
        ({"queues": [""]}, ValueError, "queue=''"),
        ({"queues": [3]}, TypeError, "queue=3"),
        ({"lease": 0.5}, ValueError, "lease=0.5"),
        ({"lease": float("nan")}, ValueError, "lease=nan"),
        ({"shutdown_timeout": -1}, ValueError, "shutdown_timeout=-1"),
        ({"shutdown_timeout": None}, TypeError, "shutdown_timeout=None"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(
    queue: JobQueue, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Worker(queue, **settings)


def test_something_that_is_no_queue_is_refused(storage: BaseStorage) -> None:
    with pytest.raises(TypeError, match="must be a JobQueue"):
        Worker(storage)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_worker_takes_an_async_queue_too(storage: BaseStorage, queue: JobQueue, start: Start) -> None:
    @job
    def hello() -> str:
        return "hello"

    worker = Worker(AsyncJobQueue(storage), poll_interval=0.05)
    with worker:
        ended(queue, [queue.enqueue(hello)])


# start.


def test_start_returns_at_once_though_the_database_does_not_answer() -> None:
    worker = Worker(JobQueue(PostgresStorage("host=127.0.0.1 port=1 connect_timeout=2")), shutdown_timeout=1)
    worker.start()  # nothing else would end it
    worker.stop()
    assert not worker._worker_thread.is_alive()


def test_start_makes_a_daemon_thread_that_polls_for_jobs(start: Start, queue: JobQueue) -> None:
    @job
    def where() -> list[str]:
        return [threading.current_thread().name]

    worker = start()
    assert worker._worker_thread.daemon
    assert worker._worker_thread.is_alive()
    assert worker._worker_thread is not threading.current_thread()
    job_id = queue.enqueue(where)
    ended(queue, [job_id])


def test_there_is_no_thread_before_start(queue: JobQueue) -> None:
    assert not hasattr(Worker(queue), "_worker_thread")


def test_a_second_start_is_refused_while_it_runs(start: Start) -> None:
    worker = start()
    with pytest.raises(RuntimeError, match="make a new one"):
        worker.start()
    assert worker._worker_thread.is_alive()


def test_a_second_start_is_refused_when_it_has_stopped(start: Start) -> None:
    worker = start()
    worker.stop()
    with pytest.raises(RuntimeError, match="make a new one"):
        worker.start()
    assert not worker._worker_thread.is_alive()


def test_of_many_threads_that_start_one_worker_one_succeeds(start: Start, queue: JobQueue) -> None:
    worker, refused = Worker(queue), list[str]()

    def begin() -> None:
        try:
            worker.start()
        except RuntimeError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.stop()
    assert len(refused) == 7


# stop.


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_stop_lets_the_current_job_finish_and_blocks_until_the_thread_has_ended(
    start: Start, queue: JobQueue, kind: str
) -> None:
    began = threading.Event()

    @job
    def slow() -> str:
        began.set()
        time.sleep(0.5)
        return "finished"

    @job
    async def aslow() -> str:
        began.set()
        await asyncio.sleep(0.5)
        return "finished"

    worker = start()
    job_id = queue.enqueue(slow if kind == "def" else aslow)
    assert began.wait(60)
    worker.stop()
    assert not worker._worker_thread.is_alive()
    done = queue.get_job(job_id)
    assert done is not None
    assert (done.status, done.result, done.attempts) == ("completed", "finished", 0)


def test_stop_claims_no_more(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    worker = start()
    first = queue.enqueue(hold)
    assert began.wait(60)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    rest = [queue.enqueue(hold) for _ in range(5)]
    go_on.set()
    stopper.join(60)
    ended(queue, [first])
    assert {job.id for job in queue.get_pending_jobs()} == set(rest)


def test_stop_is_safe_to_call_many_times(start: Start) -> None:
    worker = start(shutdown_timeout=LASTING)
    worker.stop()
    before = time.monotonic()
    for _ in range(5):
        worker.stop()
    assert time.monotonic() - before < LASTING / 2


def test_stop_is_safe_before_start_and_leaves_it_startable(start: Start, queue: JobQueue) -> None:
    @job
    def hello() -> None: ...

    worker = Worker(queue, poll_interval=0.05)
    worker.stop()
    worker.stop()
    with worker:
        ended(queue, [queue.enqueue(hello)])


def test_stop_right_after_start_ends_it(start: Start) -> None:
    for _ in range(10):
        worker = start(shutdown_timeout=LASTING)
        before = time.monotonic()
        worker.stop()
        assert not worker._worker_thread.is_alive()
        assert time.monotonic() - before < LASTING / 2


def test_stop_from_several_threads_returns_in_each_when_the_worker_has_ended(start: Start, queue: JobQueue) -> None:
    began = threading.Event()
    alive_after: list[bool] = []

    @job
    def slow() -> None:
        began.set()
        time.sleep(0.3)

    worker = start()
    job_id = queue.enqueue(slow)
    assert began.wait(60)

    def end() -> None:
        worker.stop()
        alive_after.append(worker._worker_thread.is_alive())

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert alive_after == [False] * 4
    ended(queue, [job_id])


def test_stop_waits_30_seconds_by_default_and_what_it_is_told_otherwise(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    worker = start(shutdown_timeout=2 * LASTING)
    job_id = queue.enqueue(hold)
    assert began.wait(60)
    before = time.monotonic()
    worker.stop(timeout=0.5)
    assert 0.4 < time.monotonic() - before < LASTING / 2
    go_on.set()
    back = queue.get_job(job_id)
    assert back is not None
    assert (back.status, back.attempts) == ("pending", 0)


# run.


def test_run_is_what_the_thread_runs(queue: JobQueue) -> None:
    ran = threading.Event()

    class Watched(Worker):
        def run(self) -> None:
            ran.set()
            super().run()

    worker = Watched(queue)
    assert not ran.is_set()
    worker.start()
    assert ran.wait(60)
    worker.stop()


# current_job.


def idle(worker: Worker) -> bool:
    return worker.current_job is None


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_current_job_is_the_job_that_runs_and_none_when_idle(start: Start, queue: JobQueue, kind: str) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job(name=f"page.current.{kind}")
    def hold(word: str) -> None:
        began.set()
        go_on.wait(LASTING)

    @job(name=f"page.acurrent.{kind}")
    async def ahold(word: str) -> None:
        began.set()
        await heard(go_on)

    worker = Worker(queue, poll_interval=0.05)
    assert idle(worker)
    with worker:
        assert idle(worker)
        job_id = queue.enqueue(hold if kind == "def" else ahold, word="x", priority=7, max_retries=2)
        assert began.wait(60)
        current = worker.current_job
        assert isinstance(current, Job)
        assert (current.id, current.data, current.status, current.attempts) == (job_id, {"word": "x"}, "running", 0)
        assert (current.priority, current.max_retries, current.queue) == (7, 2, "default")
        assert current.type == (f"page.current.{kind}" if kind == "def" else f"page.acurrent.{kind}")
        assert current.worker_id == worker.worker_id
        for moment in (current.created_at, current.updated_at, current.started_at):
            assert moment is not None
            assert moment.tzinfo is not None
            assert timedelta() <= datetime.now(UTC) - moment < timedelta(seconds=30)
        go_on.set()
        until(lambda: idle(worker))
    assert idle(worker)


def test_current_job_shows_how_many_attempts_have_failed(start: Start, queue: JobQueue) -> None:
    seen: list[int] = []
    worker = start()

    @job(retry=0.01)
    def fails_twice() -> None:
        current = worker.current_job
        assert current is not None
        seen.append(current.attempts)
        if len(seen) < 3:
            raise ValueError

    ended(queue, [queue.enqueue(fails_twice)])
    assert seen == [0, 1, 2]


def test_current_jobs_are_all_that_run_and_current_job_is_the_longest_running(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Semaphore(0), threading.Event()

    @job
    def hold() -> None:
        began.release()
        go_on.wait(LASTING)

    worker = start(concurrency=3)
    ids: list[str] = []
    for _ in range(3):
        ids.append(queue.enqueue(hold))
        assert began.acquire(timeout=60)
    assert {job.id for job in worker.current_jobs} == set(ids)
    current = worker.current_job
    assert current is not None
    assert current.id == ids[0]
    go_on.set()


# Usage patterns.


def test_four_workers_in_one_process_run_each_job_once(start: Start, queue: JobQueue) -> None:
    ran: Counter[int] = Counter()
    lock = threading.Lock()

    @job
    def count(n: int) -> None:
        with lock:
            ran[n] += 1

    for _ in range(4):
        start()
    ids = queue.enqueue_many(count, [{"n": n} for n in range(400)])
    ended(queue, ids)
    assert ran == Counter(range(400))


def test_a_worker_is_a_context_manager_that_stops_though_the_block_raises(queue: JobQueue) -> None:
    worker = Worker(queue)
    with pytest.raises(LookupError), worker:
        raise LookupError
    assert not worker._worker_thread.is_alive()


def test_the_monitor_of_the_page_reads_the_time_a_job_has_taken(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    worker = start()
    queue.enqueue(hold)
    assert began.wait(60)
    current = worker.current_job
    assert current is not None
    assert current.updated_at is not None
    elapsed = datetime.now(UTC) - current.updated_at
    assert 0 <= elapsed.total_seconds() < 60
    assert f"{current.attempts + 1}/{current.max_retries}" == "1/3"
    go_on.set()


# Error handling.


def test_a_job_that_raises_is_retried_while_it_may_be_and_the_worker_goes_on(start: Start, queue: JobQueue) -> None:
    order: list[str] = []

    @job(retry=0.2, max_retries=2)
    def fails() -> None:
        order.append("fails")
        raise ValueError("as it will")

    @job
    def works() -> None:
        order.append("works")

    failing = queue.enqueue(fails)
    fine = queue.enqueue(works)
    worker = start()
    ended(queue, [fine])
    waiting = queue.get_job(failing)
    assert waiting is not None
    assert (waiting.status, waiting.attempts) == ("pending", 1)
    assert waiting.error is not None
    assert waiting.error.startswith("ValueError: as it will\n")
    ended(queue, [failing], "failed")
    dead = queue.get_job(failing)
    assert dead is not None
    assert dead.attempts == 3
    assert order == ["fails", "works", "fails", "fails"]
    assert worker._worker_thread.is_alive()


def test_the_default_waits_before_a_retry_are_2_4_and_8_seconds(start: Start, queue: JobQueue) -> None:
    @job
    def fails() -> None:
        raise ValueError

    start()
    job_id = queue.enqueue(fails)

    def due_in() -> float | None:
        found = queue.get_job(job_id)
        assert found is not None
        if found.attempts == 1 and found.execute_at is not None and found.updated_at is not None:
            return (found.execute_at - found.updated_at).total_seconds()
        return None

    wait = until(due_in)
    assert wait is not None
    assert 1.99 <= wait <= 2.21


# Notes.


DAEMON = """
import sys, threading, time
from dbjobq import JobQueue, Worker, job
from tests.support.storages import storage_at
began = threading.Event()
@job(name="held")
def held():
    began.set()
    time.sleep(600)
queue = JobQueue(storage_at(sys.argv[1]))
worker = Worker(queue)
worker.start()
queue.enqueue(held)
assert began.wait(60)
print("leaving", flush=True)
"""


def test_the_daemon_thread_does_not_keep_the_process(address: str) -> None:
    command = [sys.executable, "-c", DAEMON, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, check=False)
    assert done.stdout == "leaving\n", done.stderr
    assert done.returncode == 0, done.stderr


def test_current_job_may_be_read_from_many_threads_while_jobs_come_and_go(start: Start, queue: JobQueue) -> None:
    @job
    def quick(n: int) -> None: ...

    worker = start(concurrency=4)
    enough = threading.Event()
    broken: list[BaseException] = []

    def watch() -> None:
        try:
            while not enough.is_set():
                current, all_of_them = worker.current_job, worker.current_jobs
                assert current is None or current.status == "running"
                assert len(all_of_them) <= 4
                time.sleep(0.001)
        except BaseException as error:
            broken.append(error)

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    ended(queue, queue.enqueue_many(quick, [{"n": n} for n in range(100)]), timeout=60)
    enough.set()
    for watcher in watchers:
        watcher.join()
    assert broken == []


def test_the_process_of_these_tests_leaks_no_worker_thread(start: Start) -> None:
    def ours() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("dbjobq-heart") and t.is_alive()}

    worker = start()
    until(lambda: "dbjobq-heartbeat" in ours())
    worker.stop()
    until(lambda: not ours())
