"""Runs a job's function: within its timeout and, if it is transactional, in its transaction.

Here alone it is said what is the function's failure: whatever it raises, SystemExit and a CancelledError of its own
making included. A KeyboardInterrupt, and the cancellation of whoever awaits it, are not, and pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future
from contextlib import AsyncContextDecorator, ContextDecorator, suppress
from functools import partial
from inspect import isawaitable
from types import FunctionType, MethodType
from typing import Any, Final

from dbjobq.attempt.outcome import completed, failed
from dbjobq.errors import LeaseLost
from dbjobq.jobs.registry import Task
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["OVERRUN", "arun", "awaited", "is_final", "run", "settled", "within"]

OVERRUN: Final = "the attempt took longer than its timeout of {} s"

_PLAIN: Final = frozenset({bool, dict, float, int, list, str, tuple, type(None)})
_NOT_RUN: Final[Mapping[Any, str]] = {
    Generator: "a generator",
    AsyncGenerator: "an async generator",
    (ContextDecorator, AsyncContextDecorator): "a context manager",
    (FunctionType, MethodType, partial): "a function",
}
"""What a call returns that has not run the body it was made for."""

_FUTURE: Final[Any] = Future  # of whatever type

_FAILURES: Final = (Exception, SystemExit, asyncio.CancelledError)


def run(storage: BaseStorage, claim: Claim, task: Task, call: Callable[[Any], Any]) -> Outcome | None:
    """Run a `def` job.

    Args:
        storage: For a transaction.
        claim: Under which the job is held.
        task: Its type.
        call: Calls its function; is given the transaction's connection, or None.

    Returns:
        Its outcome; None if its transaction has committed it.

    Raises:
        LeaseLost: The job was not held any more when it was to commit; all is rolled back.
        StorageUnavailable: There was no connection for a transaction: nothing was started.
    """
    started = True
    try:
        if not task.transactional:
            return completed(claim, call(None))
        storage.require("transactional")
        started = False
        with storage.transaction() as connection:
            started = True  # from here on it is an attempt, also if the commit fails
            outcome = completed(claim, call(connection))
            if not storage.finish([outcome], connection).run():
                started = False
                raise LeaseLost(claim.id)
    except _FAILURES as error:
        if not started:
            raise
        return failed(claim, error, task.retry)
    return None


async def arun(storage: BaseStorage, claim: Claim, task: Task, call: Callable[[Any], Awaitable[Any]]) -> Outcome | None:
    """Run an `async def` job; see `run`."""
    started = True
    try:
        if not task.transactional:
            return completed(claim, await call(None))
        storage.require("transactional")
        started = False
        async with storage.atransaction() as connection:
            started = True
            outcome = completed(claim, await call(connection))
            if not await storage.finish([outcome], connection).arun():
                started = False
                raise LeaseLost(claim.id)
    except _FAILURES as error:
        if not started or _is_ours(error):
            raise
        return failed(claim, error, task.retry)
    return None


def _is_ours(error: BaseException) -> bool:
    """Tell a cancellation of the task that awaits the function from one of the function's own making."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def is_final(result: object) -> bool:
    """Tell whether a function has run, and this is its result: not something that is still to be awaited, or called."""
    return type(result) in _PLAIN or not (isawaitable(result) or isinstance(result, _FUTURE) or _how_not_run(result))


async def settled(result: Any, task: Task) -> Any:
    """Return what is left when all of a function's result that can be awaited has been.

    A decorator may hide from `@job` that a function is an `async def`.

    Args:
        result: What the function returned.
        task: Its type.

    Raises:
        TypeError: The function's body has not run, and will not; or it cannot run in its transaction any more.
    """
    while True:
        if how := _how_not_run(result):
            raise TypeError(
                f"{task.name} returned {how}, so its body has not run: a job's function, and whatever decorates it, "
                "must do the work when it is called, or return something that can be awaited"
            )
        if isinstance(result, _FUTURE):
            result = asyncio.wrap_future(result)
        if not isawaitable(result):
            return result
        if task.transactional and not task.is_async:
            _drop(result)
            raise TypeError(
                f"{task.name} is a def for @job, with a thread's connection, but returned something to be awaited: "
                "with transactional=True, what decorates an async def must be an async def, too"
            )
        result = await result


async def awaited(call: Awaitable[Any], task: Task) -> Any:
    """Return what the call of an `async def` comes to; see `settled`."""
    result = await call
    return result if is_final(result) else await settled(result, task)


def _how_not_run(result: object) -> str | None:
    if isawaitable(result):  # some coroutines are generators
        return None
    return next((said for kinds, said in _NOT_RUN.items() if isinstance(result, kinds)), None)


def _drop(result: Awaitable[Any]) -> None:
    """Let a coroutine go without a warning that nobody has awaited it."""
    with suppress(Exception):
        getattr(result, "close", bool)()


async def within(seconds: float | None, call: Coroutine[Any, Any, Any], said: str = OVERRUN) -> Any:
    """Await a function's call for so long. Raises TimeoutError, which says so, after cancelling it."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(said.format(seconds)) from error
        raise
