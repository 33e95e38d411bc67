"""Outcomes: whether an ended attempt is completed, retried, failed or handed back. Pure; nothing is awaited."""

from __future__ import annotations

import random
from typing import Any, Final

from dbjobq.attempt.describe import describe, ending, message
from dbjobq.codec.json import dump_result, storable_text
from dbjobq.jobs.retry import DEFAULT_RETRY, Retry, RetryPolicy
from dbjobq.models import after_failure
from dbjobq.storage.values import Claim, Outcome

__all__ = ["UNKNOWN_WITHIN", "completed", "failed", "failed_with", "unfinished", "unknown"]

UNKNOWN_WITHIN: Final = 3600.0
"""Seconds for which a job waits for a worker that knows its type, if nobody says otherwise: longer than a deploy."""
MAX_DELAY: Final = 100 * 366 * 86400.0
"""The most seconds until a retry: a century, for which PostgreSQL's calendar and Python's both have room."""


def completed(claim: Claim, result: Any) -> Outcome:
    """Return the outcome of an attempt that returned `result`.

    A result that JSON cannot hold is dropped, and the error says so; the job is completed all the same.
    """
    try:
        return Outcome(claim, "complete", None, dump_result(result))
    except (TypeError, ValueError) as error:
        return Outcome(
            claim,
            "complete",
            storable_text(f"{error}; the job ran to its end, and is not run again for that"),
        )


def failed(claim: Claim, error: BaseException, policy: RetryPolicy = DEFAULT_RETRY) -> Outcome:
    """Return the outcome of an attempt that raised: a retry after the policy's delay, or the end.

    Never raises: where the user's own policy does, the default policy decides, and the error says so.
    """
    return _failure(claim, describe(error), error, policy)


def failed_with(claim: Claim, error: str, policy: RetryPolicy = DEFAULT_RETRY) -> Outcome:
    """Return the outcome of an attempt that is said to have failed, for `fail(job, error)`."""
    return _failure(claim, storable_text(ending(error)), None, policy)


def unfinished(claim: Claim) -> Outcome:
    """Return the outcome of an attempt that is not over when its worker stops: the job is handed back.

    But a job with `max_retries=0` has failed: it may start only once, and has.
    """
    if claim.max_retries > 0:
        return Outcome(claim, "release")
    return failed(claim, TimeoutError("the worker stopped before it ended, and max_retries=0 allows one start"))


def unknown(claim: Claim, error: BaseException, within: float) -> Outcome:
    """Return the outcome of a job of unknown type: it is put off, since other workers may know the type by now.

    Args:
        claim: The claim under which the job is held.
        error: Why the type was not found.
        within: Seconds, counted by the database, after which such a job fails.
    """
    rule = f"The job is put off, which uses up no attempt, and fails after {within:g} s of that (unknown_within)."
    return Outcome(claim, "unknown", f"{describe(error).rstrip()}\n\n{rule}", None, within, error)


def _failure(claim: Claim, said: str, error: BaseException | None, policy: RetryPolicy) -> Outcome:
    asked = error.after if isinstance(error, Retry) else None
    try:
        worth = error is None or bool(policy.worth(error))
        delay = _delay(claim, policy, asked)
    except BaseException as broken:
        worth, delay = error is None or DEFAULT_RETRY.worth(error), _delay(claim, DEFAULT_RETRY, None)
        said += f"\n\nThe default retry policy was used: the job type's own raised {storable_text(message(broken))}"
    event = after_failure(claim.attempts, claim.max_retries) if worth else "fail"
    return Outcome(claim, event, said, None, delay, error if event == "fail" else None)


def _delay(claim: Claim, policy: RetryPolicy, asked: float | None) -> float:
    seconds = policy.delay(claim.attempts + 1, random.random()) if asked is None else asked  # noqa: S311 - jitter
    if not seconds >= 0:  # a subclass may return anything, NaN included
        raise ValueError(f"a delay of {seconds} seconds")
    return float(min(seconds, MAX_DELAY))
