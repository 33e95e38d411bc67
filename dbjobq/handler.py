"""Runs a job's function: within its timeout and, if it is transactional, in its transaction (contract §6).

Here alone it is said what is the function's failure: whatever it raises, SystemExit and a CancelledError of its own
making included. A KeyboardInterrupt, and the cancellation of whoever awaits it, are not, and pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from dbjobq.attempt import completed, failed
from dbjobq.errors import LeaseLost
from dbjobq.registry import Task
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["OVERRUN", "arun", "run", "within"]

OVERRUN: Final = "the attempt took longer than its timeout of {} s"

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
