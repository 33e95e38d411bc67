"""Decorators that hide from `@job` what a function is: it runs, or fails; none ends without having run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import pytest

from dbjobq import AsyncJobQueue, JobContext, JobQueue, job
from tests.support import apart
from tests.support.looking import error_of, get, result_of
from tests.support.waiting import ended, until
from tests.worker.conftest import Start

Function = Callable[..., Any]

RAN: Final[list[int]] = []
POOL: Final = ThreadPoolExecutor(1, "test-pool")


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def passes_on(function: Function) -> Function:
    """What many decorators do: a `def` that calls, and returns what comes of it."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def forgets_to_await(function: Function) -> Function:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def as_task(function: Function) -> Function:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.create_task(function(*args, **kwargs))

    return wrapper


def in_pool(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Future[Any]:
        return POOL.submit(lambda: asyncio.run(function(*args, **kwargs)))

    return wrapper


def with_run(function: Function) -> Function:
    """As asgiref's and click's helpers: a `def` that needs a loop of its own."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return asyncio.run(function(*args, **kwargs))

    return wrapper


DECORATORS: Final = [passes_on, forgets_to_await, as_task, in_pool, with_run]


async def works(n: int) -> int:
    await asyncio.sleep(0)
    RAN.append(n)
    return n + 1


@pytest.mark.every_storage
@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("decorator", DECORATORS)
def test_an_async_def_runs_however_it_is_decorated(
    start: Start, queue: JobQueue, decorator: Callable[[Function], Function], timeout: float | None
) -> None:
    task = job(name="disguised.works", timeout=timeout)(decorator(works))
    start()
    assert result_of(queue, queue.enqueue(task, n=1)) == 2
    assert RAN == [1]


@pytest.mark.parametrize("decorator", DECORATORS)
def test_it_runs_by_hand_too(queue: JobQueue, decorator: Callable[[Function], Function]) -> None:
    task = job(name="disguised.works")(decorator(works))
    queue.enqueue(task, n=1)
    by_hand = queue.dequeue()
    assert by_hand is not None
    queue.execute_job(by_hand)

    async def again() -> None:
        aqueue = AsyncJobQueue(queue.storage)
        await aqueue.enqueue(task, n=2)
        other = await aqueue.dequeue()
        assert other is not None
        await aqueue.execute_job(other)
        await aqueue.close()

    asyncio.run(again())
    assert RAN == [1, 2]
    assert queue.stats()["completed"] == 2


async def fails() -> None:
    raise ValueError("from inside")


async def hangs() -> None:
    RAN.append(0)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        RAN.append(1)


def test_what_it_raises_when_it_is_awaited_is_the_attempts_failure(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(job(name="disguised.fails", max_retries=0)(passes_on(fails)))
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith("ValueError: from inside")
    assert "in fails" in error_of(queue, job_id)


def test_its_timeout_cancels_what_is_awaited(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(job(name="disguised.hangs", max_retries=0, timeout=0.2)(passes_on(hangs)))
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith("TimeoutError: ")
    until(lambda: RAN == [0, 1])


def test_a_cancelled_job_is_cancelled_there(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(job(name="disguised.cancelled")(passes_on(hangs)))
    until(lambda: RAN == [0])
    assert queue.cancel(job_id)
    until(lambda: RAN == [0, 1])
    assert get(queue, job_id).status == "cancelled"


def test_a_stopped_worker_hands_it_back_and_ends(start: Start, queue: JobQueue) -> None:
    worker = start(shutdown_timeout=0.3)
    job_id = queue.enqueue(job(name="disguised.stopped")(passes_on(hangs)))
    until(lambda: RAN == [0])
    worker.stop()
    assert RAN == [0, 1]
    assert get(queue, job_id).status == "pending"
    assert get(queue, job_id).attempts == 0


async def enqueues(ctx: JobContext) -> str:
    assert isinstance(ctx.queue, AsyncJobQueue)
    return await ctx.queue.enqueue("disguised.other", max_retries=0)


@pytest.mark.parametrize("decorator", [passes_on, forgets_to_await])
def test_its_context_is_that_of_an_async_def(
    start: Start, queue: JobQueue, decorator: Callable[[Function], Function]
) -> None:
    start()
    other = result_of(queue, queue.enqueue(job(name="disguised.enqueues")(decorator(enqueues))))
    assert queue.get_job(other) is not None


# What has not run.


def is_generator() -> Generator[int]:
    RAN.append(1)
    yield 1


async def is_async_generator() -> AsyncGenerator[int]:
    RAN.append(1)
    yield 1


def needs_parentheses(times: int = 3) -> Function:
    def decorator(function: Function) -> Function:
        return passes_on(function)

    return decorator


NOT_RUN: Final[dict[str, tuple[Function, str]]] = {
    "generator": (passes_on(is_generator), "a generator"),
    "async generator": (passes_on(is_async_generator), "an async generator"),
    "awaited generator": (forgets_to_await(is_generator), "a generator"),
    "context manager": (contextlib.contextmanager(is_generator), "a context manager"),
    "async context manager": (contextlib.asynccontextmanager(is_async_generator), "a context manager"),
    "decorator without its parentheses": (needs_parentheses, "a function"),
    "partial": (lambda: functools.partial(works, 1), "a function"),
}


@pytest.mark.parametrize("kind", NOT_RUN)
def test_what_has_not_run_its_body_fails(start: Start, queue: JobQueue, kind: str) -> None:
    function, said = NOT_RUN[kind]
    task = job(name=f"disguised.{kind}", max_retries=0)(function)
    start()
    job_id = queue.enqueue(task)
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith(f"TypeError: disguised.{kind} returned {said}")
    assert not RAN


def test_what_has_not_run_fails_by_hand_too(queue: JobQueue) -> None:
    job_id = queue.enqueue(job(name="disguised.by_hand", max_retries=0)(passes_on(is_generator)))
    by_hand = queue.dequeue()
    assert by_hand is not None
    queue.execute_job(by_hand)
    assert error_of(queue, job_id).startswith("TypeError: disguised.by_hand returned a generator")


# Transactions, and processes.


async def writes(ctx: JobContext) -> None:
    RAN.append(1)


def test_in_a_transaction_a_def_cannot_return_what_is_to_be_awaited(start: Start, queue: JobQueue) -> None:
    task = job(name="disguised.writes", transactional=True, max_retries=0)(passes_on(writes))
    start()
    job_id = queue.enqueue(task)
    ended(queue, [job_id], "failed")
    assert "must be an async def, too" in error_of(queue, job_id)
    assert not RAN


@pytest.mark.parametrize("decorator", [forgets_to_await, as_task])
def test_in_a_transaction_an_async_def_awaits_all(
    start: Start, queue: JobQueue, decorator: Callable[[Function], Function]
) -> None:
    task = job(name="disguised.awrites", transactional=True, max_retries=0)(decorator(writes))
    start()
    ended(queue, [queue.enqueue(task)])
    assert RAN == [1]


def test_a_process_of_its_own_awaits_it_too(start: Start, queue: JobQueue) -> None:
    start()
    disguised, unrun = queue.enqueue(apart.disguised, n=1), queue.enqueue(apart.not_run)
    ended(queue, [disguised])
    assert result_of(queue, disguised) == 2
    ended(queue, [unrun], "failed")
    assert "tests.support.apart.not_run returned a generator" in error_of(queue, unrun)


# What is not touched.


def test_a_result_that_is_only_no_json_is_a_result_still(start: Start, queue: JobQueue) -> None:
    @job(name="disguised.set")
    def gives() -> object:
        return threading.Lock()

    start()
    job_id = queue.enqueue(gives)
    ended(queue, [job_id])
    assert "not run again" in error_of(queue, job_id)
