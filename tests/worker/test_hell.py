"""Handlers from hell: whatever one does, the worker lives, the job's fate is clear, and the next job runs."""

# pyright: reportPrivateUsage=false

# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import decimal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import pytest

from dbjobq import JobContext, JobQueue, Retry, RetryPolicy, Worker, job
from tests.storage.database import Database
from tests.support.waiting import ended, failed_once, heard, lasting, settled, until
from tests.worker.conftest import LASTING, Events, Start


class Wild(BaseException):
    """Not an `Exception`."""


class Unspeakable(Exception):  # noqa: N818 - what it is
    """Has no words for itself."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Deadly(Exception):  # noqa: N818
    """Worse: asking it for its message raises what ends programs."""

    def __str__(self) -> str:
        raise SystemExit("no words")


class Interrupting(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise KeyboardInterrupt


class NoText(Exception):  # noqa: N818
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307  # pyright: ignore[reportReturnType]


def deep() -> int:
    return 1 + deep()


def leave() -> NoReturn:
    sys.exit(3)


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


MISDEEDS: dict[str, tuple[Callable[[], Any], str]] = {
    "sys.exit": (leave, "SystemExit: 3"),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), "KeyboardInterrupt: "),
    "BaseException": (raising(Wild("wild")), "Wild: wild"),
    "CancelledError": (raising(asyncio.CancelledError("by hand")), "CancelledError: by hand"),
    "GeneratorExit": (raising(GeneratorExit("by hand")), "GeneratorExit: by hand"),
    "StopIteration": (raising(StopIteration(1)), ""),
    "StopAsyncIteration": (raising(StopAsyncIteration()), "StopAsyncIteration"),
    "no message": (raising(Unspeakable()), "Unspeakable: "),
    "message exits": (raising(Deadly()), "Deadly: "),
    "message interrupts": (raising(Interrupting()), "Interrupting: "),
    "message is no text": (raising(NoText()), "NoText: "),
    "huge message": (raising(ValueError("x" * 50_000_000)), "ValueError: xxx"),
    "NUL": (raising(ValueError("a\x00b")), "ValueError: a\\x00b"),
    "lone surrogate": (raising(ValueError("a\ud800b")), "ValueError: a\\ud800b"),
    "recursion": (deep, "RecursionError: "),
    "group": (raising(BaseExceptionGroup("all", [Wild("a"), ValueError("b")])), "BaseExceptionGroup: all"),
}


@pytest.fixture
def next_one(queue: JobQueue) -> Callable[[], None]:
    """Checks that further jobs run, of both kinds, several of each."""

    @job(max_retries=0, name="hell.next")
    def sync() -> None: ...

    @job(max_retries=0, name="hell.anext")
    async def coroutine() -> None:
        await asyncio.sleep(0)

    def check() -> None:
        ended(queue, [queue.enqueue(kind) for _ in range(3) for kind in (coroutine, sync)])

    return check


def assert_failed(queue: JobQueue, job_id: str, error: str) -> None:
    ended(queue, [job_id], "failed")
    found = queue.get_job(job_id)
    assert found is not None
    assert found.attempts == 1
    assert (found.error or "").startswith(error), (found.error or "")[:200]
    assert len(found.error or "") < 50_000


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_whatever_a_def_raises_is_its_jobs_failure(
    start: Start, queue: JobQueue, next_one: Callable[[], None], misdeed: str
) -> None:
    do, error = MISDEEDS[misdeed]

    @job(max_retries=0, name=f"hell.{misdeed}")
    def sync() -> None:
        do()

    worker = start()
    assert_failed(queue, queue.enqueue(sync), error)
    next_one()
    assert worker._worker_thread.is_alive()


@pytest.mark.parametrize(
    ("misdeed", "timeout"),
    [*((misdeed, None) for misdeed in MISDEEDS), *((m, 5.0) for m in ("sys.exit", "CancelledError", "BaseException"))],
)
def test_whatever_an_async_def_raises_is_its_jobs_failure(
    start: Start, queue: JobQueue, next_one: Callable[[], None], timeout: float | None, misdeed: str, loop: str
) -> None:
    do, error = MISDEEDS[misdeed]

    @job(max_retries=0, timeout=timeout, name=f"hell.a{misdeed}")
    async def coroutine() -> None:
        await asyncio.sleep(0)
        do()

    worker = start()
    assert_failed(queue, queue.enqueue(coroutine), error)
    next_one()
    assert worker._worker_thread.is_alive()


@pytest.mark.parametrize(
    "misdeed", ["sys.exit", "KeyboardInterrupt", "BaseException", "CancelledError", "message exits"]
)
@pytest.mark.parametrize("kind", ["def", "async"])
def test_whatever_a_transactional_handler_raises_is_its_jobs_failure(
    start: Start, queue: JobQueue, next_one: Callable[[], None], kind: str, misdeed: str, loop: str
) -> None:
    do, error = MISDEEDS[misdeed]

    @job(max_retries=0, transactional=True, name=f"hell.tx.{misdeed}")
    def sync() -> None:
        do()

    @job(max_retries=0, transactional=True, name=f"hell.tx.a{misdeed}")
    async def coroutine() -> None:
        await asyncio.sleep(0)
        do()

    start()
    job_id = queue.enqueue(sync if kind == "def" else coroutine)
    assert_failed(queue, job_id, error)
    next_one()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Wild("wild"), ValueError("plain")], ids=type)
@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "forgotten"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_a_handler_starts_cannot_end_the_worker(
    start: Start, queue: JobQueue, next_one: Callable[[], None], error: BaseException, awaited: bool, loop: str
) -> None:
    kept: list[asyncio.Task[None]] = []

    @job(max_retries=0)
    async def parent() -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            raise error

        task = asyncio.create_task(child())
        kept.append(task)
        if awaited:
            await task
        else:
            await asyncio.sleep(0.05)

    worker = start()
    job_id = queue.enqueue(parent)
    if awaited:
        assert_failed(queue, job_id, type(error).__name__)
    else:
        ended(queue, [job_id])
    next_one()
    assert worker._worker_thread.is_alive()
    kept.clear()


@pytest.mark.parametrize("then", ["await", "return", "raise"])
def test_a_job_that_cancels_its_own_task_fails_alone(
    start: Start, queue: JobQueue, next_one: Callable[[], None], then: str, loop: str
) -> None:
    @job(max_retries=0)
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if then == "await":
            await asyncio.sleep(1)
        if then == "raise":
            raise ValueError

    @job(max_retries=0)
    async def innocent() -> None:
        await asyncio.sleep(0.01)

    @job(max_retries=0)
    def sync_innocent() -> None:
        time.sleep(0.01)

    guilty: list[str] = []
    others: list[str] = []
    for _ in range(4):
        guilty.append(queue.enqueue(cancels_itself))
        others += [queue.enqueue(innocent), queue.enqueue(sync_innocent)]
    start()
    ended(queue, others)
    if then != "return":
        ended(queue, guilty, "failed")
    else:
        settled(queue)
    next_one()


def test_a_job_that_cancels_its_own_task_leaves_alone_those_claimed_with_it(
    start: Start, queue: JobQueue, database: Database, loop: str
) -> None:
    @job(max_retries=0)
    async def mixed(guilty: bool) -> None:
        if guilty:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0)

    @job(max_retries=0)
    def sync_innocent() -> None: ...

    start()
    ended(queue, queue.enqueue_many(mixed, [{"guilty": False}] * 300))  # so that many are claimed at a time
    ids = queue.enqueue_many(mixed, [{"guilty": n % 10 == 0} for n in range(100)])
    others = queue.enqueue_many(sync_innocent, [dict[str, int]()] * 20)
    innocent = [job_id for n, job_id in enumerate(ids) if n % 10]
    ended(queue, innocent + others)
    until(lambda: database.value("select count(*) from dbjobq.lease") == 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("misdeed", ["cancel every task", "stop the loop"])
def test_a_job_that_wrecks_the_event_loop_ends_at_worst_its_worker_which_says_so_and_no_job_is_lost(
    start: Start, queue: JobQueue, loop: str, misdeed: str
) -> None:
    @job(max_retries=2)
    async def wrecks(ctx: JobContext) -> None:
        if ctx.job.attempts or ctx.job.worker_id != wrecked.worker_id:
            return
        if misdeed == "stop the loop":
            asyncio.get_running_loop().stop()
        else:
            for task in asyncio.all_tasks():
                task.cancel()
        await asyncio.sleep(0.05)

    @job
    async def innocent() -> None: ...

    wrecked = Worker(queue, poll_interval=0.05, lease=2.0, concurrency=2)
    ids = [queue.enqueue(innocent), queue.enqueue(wrecks), queue.enqueue(innocent)]
    wrecked.start()
    until(lambda: queue.count("completed") == 3 or not wrecked._worker_thread.is_alive())
    survived = wrecked._worker_thread.is_alive()
    assert survived or wrecked.error is not None
    start(lease=2.0)
    ended(queue, ids)
    wrecked.stop()


def test_a_job_that_swallows_its_cancellation_is_cancelled_all_the_same(
    start: Start, queue: JobQueue, next_one: Callable[[], None], loop: str
) -> None:
    began, swallowed = threading.Event(), threading.Event()

    @job
    async def stubborn() -> str:
        began.set()
        for _ in range(3):
            try:
                await asyncio.sleep(0.5)
            except asyncio.CancelledError:
                swallowed.set()
        return "late"

    start()
    job_id = queue.enqueue(stubborn)
    assert began.wait(60)
    assert queue.cancel(job_id)
    assert swallowed.wait(60)
    next_one()
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("cancelled", None)


def test_a_job_that_swallows_its_timeout_ends_when_its_function_does(
    start: Start, queue: JobQueue, next_one: Callable[[], None], loop: str
) -> None:
    @job(timeout=0.1, max_retries=0)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
        return "late"

    start()
    job_id = queue.enqueue(stubborn)
    settled(queue)
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.result) in {("failed", None), ("completed", "late")}
    next_one()


def test_a_job_that_blocks_the_event_loop_is_not_taken_from_its_worker(
    start: Start, queue: JobQueue, events: Events
) -> None:
    ran: list[int] = []

    @job
    async def blocks(ctx: JobContext) -> str:
        ran.append(ctx.job.attempts)
        time.sleep(3.5)  # noqa: ASYNC251 - the misdeed, for more than a life
        return "done"

    start(lease=4.0)
    job_id = queue.enqueue(blocks)
    until(lambda: ran)
    second = start(lease=4.0)
    ended(queue, [job_id], timeout=60)
    assert ran == [0]
    assert not events.of("job.rescued")
    found = queue.get_job(job_id)
    assert found is not None
    assert found.worker_id != second.worker_id


def test_a_job_that_holds_the_gil_is_not_taken_from_its_worker(start: Start, queue: JobQueue, events: Events) -> None:
    ran: list[int] = []

    @job
    def hog(ctx: JobContext) -> None:
        ran.append(ctx.job.attempts)
        by = time.monotonic() + 3.0
        while time.monotonic() < by:
            sum(range(1_000_000))  # pure Python, gives the GIL up only when asked to

    start(lease=4.0)
    start(lease=4.0)
    ended(queue, [queue.enqueue(hog)])
    assert ran == [0]
    assert not events.of("job.rescued")


def test_a_job_that_leaks_threads_ends_as_any_other(
    start: Start, queue: JobQueue, next_one: Callable[[], None]
) -> None:
    go_on = threading.Event()

    @job
    def leaks() -> None:
        for _ in range(20):
            threading.Thread(target=go_on.wait, args=(LASTING,), daemon=True).start()

    worker = start(shutdown_timeout=LASTING)
    ended(queue, [queue.enqueue(leaks) for _ in range(3)])
    next_one()
    before = time.monotonic()
    worker.stop()
    assert time.monotonic() - before < LASTING / 2
    go_on.set()


def test_a_job_that_leaves_tasks_behind_does_not_hold_up_stopping(start: Start, queue: JobQueue, loop: str) -> None:
    kept: list[asyncio.Task[None]] = []

    @job
    async def leaves() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(LASTING)))

    worker = start(shutdown_timeout=LASTING)
    ended(queue, [queue.enqueue(leaves) for _ in range(3)])
    before = time.monotonic()
    worker.stop()
    assert time.monotonic() - before < LASTING / 2
    assert worker.error is None


@pytest.mark.parametrize(
    "after", [1e10, 1e13, 1e300, timedelta.max], ids=["centuries", "beyond", "far beyond", "timedelta.max"]
)
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_retry_later_than_postgresql_has_dates_for_is_clear_and_harms_nobody(
    start: Start, queue: JobQueue, next_one: Callable[[], None], kind: str, after: float | timedelta
) -> None:
    @job(max_retries=1)
    def later() -> None:
        raise Retry(after=after)

    @job(max_retries=1)
    async def alater() -> None:
        raise Retry(after=after)

    worker = start()
    job_id = queue.enqueue(later if kind == "def" else alater)
    assert "Retry" in (failed_once(queue, job_id).error or "")
    next_one()
    assert worker._worker_thread.is_alive()


def test_a_policy_beyond_postgresqls_calendar_harms_nobody(
    start: Start, queue: JobQueue, next_one: Callable[[], None]
) -> None:
    @job(max_retries=5, retry=RetryPolicy(base=1e14, max_delay=1e15))
    def fails() -> None:
        raise ValueError("again")

    start()
    job_id = queue.enqueue(fails)
    failed_once(queue, job_id)
    next_one()


class Undecided(RetryPolicy):
    """A policy that raises what ends programs."""

    def worth(self, error: BaseException) -> bool:
        raise SystemExit(f"no opinion on {error!r}")


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_policy_that_raises_harms_nobody(
    start: Start, queue: JobQueue, next_one: Callable[[], None], kind: str
) -> None:
    @job(retry=Undecided())
    def fails() -> None:
        raise LookupError("again")

    @job(retry=Undecided())
    async def afails() -> None:
        raise LookupError("again")

    start()
    failed = failed_once(queue, queue.enqueue(fails if kind == "def" else afails))
    assert failed.status == "pending"
    assert failed.error is not None
    assert failed.error.startswith("LookupError: again")
    assert "SystemExit: no opinion on LookupError" in failed.error
    next_one()


@pytest.mark.parametrize("done", [float("nan"), float("inf"), -1.0, 10**30])
@pytest.mark.parametrize("kind", ["def", "async"])
def test_progress_that_json_does_not_have_harms_nobody(
    start: Start, queue: JobQueue, next_one: Callable[[], None], kind: str, done: float
) -> None:
    go_on = threading.Event()

    @job
    def says(ctx: JobContext) -> None:
        ctx.progress(done, 1.0, "text \x00 \ud800")
        go_on.wait(1.5)

    @job
    async def asays(ctx: JobContext) -> None:
        ctx.progress(done, 1.0, "text \x00 \ud800")
        await heard(go_on)

    worker = start(concurrency=2)
    job_id = queue.enqueue(says if kind == "def" else asays)
    lasting(worker._worker_thread.is_alive, 1.2, "the worker")
    next_one()
    go_on.set()
    ended(queue, [job_id])


def test_progress_of_something_that_is_no_number_is_refused_in_the_job(
    start: Start, queue: JobQueue, next_one: Callable[[], None]
) -> None:
    @job(max_retries=0)
    def says(ctx: JobContext) -> None:
        ctx.progress(decimal.Decimal(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    start()
    assert_failed(queue, queue.enqueue(says), "TypeError: ")
    next_one()


def test_a_job_that_changes_its_arguments_changes_only_its_copy(start: Start, queue: JobQueue) -> None:
    @job(retry=0.02)
    def changes(ctx: JobContext, items: list[int]) -> list[int]:
        items.append(1)
        ctx.job.data["items"].append(2)
        ctx.job.data.clear()
        if ctx.job.attempts == 0:
            raise ValueError
        return items

    start()
    job_id = queue.enqueue(changes, items=[])
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.data, found.result) == ({"items": []}, [1])


def test_a_def_job_that_stops_its_own_worker_is_handed_back_or_ends(queue: JobQueue) -> None:
    workers: list[Worker] = []
    stopped = threading.Event()

    @job
    def stops() -> None:
        workers[0].stop()
        stopped.set()

    worker = Worker(queue, poll_interval=0.05, shutdown_timeout=0.5)
    workers.append(worker)
    job_id = queue.enqueue(stops)
    worker.start()
    worker._worker_thread.join(60)
    assert not worker._worker_thread.is_alive()
    assert stopped.wait(60)
    found = queue.get_job(job_id)
    assert found is not None
    assert found.status in {"completed", "pending"}
    assert found.attempts == 0


def test_an_async_job_that_stops_its_own_worker_ends_and_then_the_worker(queue: JobQueue) -> None:
    workers: list[Worker] = []

    @job
    async def stops() -> None:
        workers[0].stop()
        await asyncio.sleep(0.05)

    worker = Worker(queue, poll_interval=0.05)
    workers.append(worker)
    job_id = queue.enqueue(stops)
    worker.start()
    worker._worker_thread.join(60)
    assert not worker._worker_thread.is_alive()
    ended(queue, [job_id])


def test_a_flood_of_misdeeds_is_survived(
    start: Start, queue: JobQueue, next_one: Callable[[], None], database: Database
) -> None:
    @job(max_retries=0)
    async def misbehaves(n: int) -> None:
        if n % 5 == 0:
            sys.exit(n)
        if n % 5 == 1:
            raise Wild
        if n % 5 == 2:
            raise asyncio.CancelledError
        if n % 5 == 3:
            raise Unspeakable

    start(concurrency=5)
    ids = queue.enqueue_many(misbehaves, [{"n": n} for n in range(500)])
    ended(queue, ids[4::5], timeout=60)
    ended(queue, [i for n, i in enumerate(ids) if n % 5 != 4], "failed", timeout=60)
    assert database.value("select count(*) from dbjobq.lease") == 0
    next_one()
