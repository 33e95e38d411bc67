"""Runs one attempt of a job, in its transaction if it has one, and decides what counts as the function's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from dbjobq.attempt.call import Call
from dbjobq.attempt.outcome import completed, failed
from dbjobq.errors import LeaseLost, StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_REFUSED, TRANSACTION_FAILED
from dbjobq.hooks import tell_ended
from dbjobq.jobs.registry import JobType
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["OVERRUN", "arun", "ended_by", "run", "within"]

OVERRUN: Final = "the attempt took longer than its timeout of {} s"


def run(  # noqa: PLR0913 - what an attempt consists of
    storage: BaseStorage | None, claim: Claim, task: JobType, call: Call, holder: Any, *, by_hand: bool = False
) -> Outcome | None:
    """Run a `def` job, in this thread.

    Args:
        storage: The storage, for a transaction; None where no job type has one.
        claim: The claim under which the job is held.
        task: The job's type.
        call: Calls the job's function.
        holder: The object that runs the attempt.
        by_hand: See `ended_by`.

    Returns:
        The attempt's outcome; None if it is written already, or is nobody's to write.
    """
    if not task.transactional or storage is None:
        try:
            return completed(claim, call(claim, None, holder))
        except BaseException as error:
            return ended_by(claim, task, error, by_hand=by_hand)
    started = True
    try:
        storage.require("transactional")
        started = False
        with storage.transaction() as connection:
            started = True  # from here on it is an attempt, also if the commit fails
            outcome = completed(claim, call(claim, connection, holder))
            if not storage.finish([outcome], connection).run():
                started = False
                raise LeaseLost(claim.id)
    except BaseException as error:
        if isinstance(error, LeaseLost) and not (started or by_hand):
            _refused(claim, cancelled=_cancelled(storage, claim))
            return None
        return ended_by(claim, task, error, started=started, by_hand=by_hand)
    if not by_hand:
        tell_ended([outcome])
    return None


async def arun(  # noqa: PLR0913 - as above
    storage: BaseStorage,
    claim: Claim,
    task: JobType,
    call: Callable[[Claim, Any, Any], Awaitable[Any]],
    holder: Any,
    *,
    by_hand: bool = False,
) -> Outcome | None:
    """Run an `async def` job; see `run`."""
    started = True
    try:
        if not task.transactional:
            return completed(claim, await call(claim, None, holder))
        storage.require("transactional")
        started = False
        async with storage.atransaction() as connection:
            started = True
            outcome = completed(claim, await call(claim, connection, holder))
            if not await storage.finish([outcome], connection).arun():
                started = False
                raise LeaseLost(claim.id)
    except BaseException as error:
        if isinstance(error, LeaseLost) and not (started or by_hand):
            _refused(claim, cancelled=await _acancelled(storage, claim))
            return None
        return ended_by(claim, task, error, started=started, by_hand=by_hand)
    if not by_hand:
        tell_ended([outcome])
    return None


def ended_by(
    claim: Claim, task: JobType, error: BaseException, *, started: bool = True, by_hand: bool = False
) -> Outcome | None:
    """Return what is to be written of an attempt that ended in an exception; called where that is caught.

    This function alone decides what counts as the function's failure: whatever the function raises, SystemExit and a
    CancelledError of its own making included. For a worker that includes KeyboardInterrupt, which nobody sends to its
    threads. An attempt that has not started, or whose job is not held any more, did not fail.

    Args:
        claim: The claim under which the job is held, or was.
        task: The job's type.
        error: The exception.
        started: Whether the function was called, and its result may be written.
        by_hand: Whether somebody waits for the attempt: what is not the function's failure is raised again then, such
            as a KeyboardInterrupt, and the cancellation of whoever waits.

    Returns:
        The outcome; None if another has the job, so there is nothing to be written.

    Raises:
        LeaseLost: By hand: the job was not held any more when it was to commit; all is rolled back.
        StorageUnavailable: By hand: there was no connection for a transaction; nothing was started.
    """
    if by_hand:
        if not started or not isinstance(error, Exception | SystemExit | asyncio.CancelledError) or _is_ours(error):
            raise  # noqa: PLE0704 - the caller has caught it
    elif not started and isinstance(error, StorageUnavailable):
        emit(TRANSACTION_FAILED, claim, error=str(error))
        return Outcome(claim, "release")  # not the job's fault, so it uses up no attempt
    return failed(claim, error, task.retry)


def _refused(claim: Claim, *, cancelled: bool) -> None:
    """Tell that the job was not held any more when its transaction was to commit: all is rolled back."""
    emit(JOB_REFUSED, claim, quietly=cancelled)
    tell_ended((), [Outcome(claim, "complete")])


def _cancelled(storage: BaseStorage, claim: Claim) -> bool:
    with suppress(StorageUnavailable):
        found = storage.get_job(claim.id).run()
        return found is not None and found.status == "cancelled"
    return False


async def _acancelled(storage: BaseStorage, claim: Claim) -> bool:
    with suppress(StorageUnavailable):
        found = await storage.get_job(claim.id).arun()
        return found is not None and found.status == "cancelled"
    return False


def _is_ours(error: BaseException) -> bool:
    """Tell a cancellation of the task that awaits the function from one of the function's own making."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return False
    return task is not None and task.cancelling() > 0


async def within(seconds: float | None, call: Coroutine[Any, Any, Any], said: str = OVERRUN) -> Any:
    """Await a function's call for at most `seconds`. Raises TimeoutError, with `said`, after cancelling it."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await call
    except TimeoutError as error:
        if limit.expired():
            raise TimeoutError(said.format(seconds)) from error
        raise
