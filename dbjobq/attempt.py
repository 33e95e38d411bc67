"""One attempt of one job → one outcome. What raises, and what cannot be stored, is decided here; nothing is awaited."""

from __future__ import annotations

import random
import re
import traceback
from typing import Any, Final

from dbjobq.models import after_failure
from dbjobq.retry import DEFAULT_RETRY, Retry, RetryPolicy
from dbjobq.serialize import dump_result, storable_text
from dbjobq.storage.base import Claim, Outcome

__all__ = ["completed", "failed", "failed_with"]

MAX_ERROR: Final = 16_000
"""Characters of a traceback that are kept: its end, where the cause is."""
_PASSWORD: Final = re.compile(
    r"(password(?:[\"']\s*:|\s*=)\s*)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\"&]+)|(://[^\s:/@]*:)[^\s/]+(?=@)",
    re.IGNORECASE,
)
"""What stands in a DSN as a password: `password=…`, `"password": …`, `://user:…@`."""
MAX_DELAY: Final = 100 * 366 * 86400.0
"""Seconds until a retry: a century, which PostgreSQL's calendar and Python's both have room for."""


def completed(claim: Claim, result: Any) -> Outcome:
    """Return the outcome of an attempt that returned `result`.

    A result that JSON cannot hold is dropped, and the error says so; the job is completed all the same (contract §3).
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
    """Return the outcome of an attempt that raised: a retry after the policy's delay, or the end."""
    event = after_failure(claim.attempts, claim.max_retries) if policy.worth(error) else "fail"
    delay = error.after if isinstance(error, Retry) else None
    return Outcome(claim, event, describe(error), None, _delay(claim, policy, delay))


def failed_with(claim: Claim, error: str, policy: RetryPolicy = DEFAULT_RETRY) -> Outcome:
    """Return the outcome of an attempt that is said to have failed, for `fail(job, error)`."""
    event = after_failure(claim.attempts, claim.max_retries)
    return Outcome(claim, event, storable_text(_end(error)), None, _delay(claim, policy, None))


def _delay(claim: Claim, policy: RetryPolicy, asked: float | None) -> float:
    seconds = policy.delay(claim.attempts + 1, random.random()) if asked is None else asked  # noqa: S311 - jitter
    return min(seconds, MAX_DELAY)


def describe(error: BaseException) -> str:
    """Return `Type: message` and the traceback, from the handler's own frame on."""
    try:
        said = str(error)
    except BaseException as broken:  # a handler's exception may do anything when it is asked
        said = f"(its message raised {type(broken).__name__})"
    head = f"{type(error).__name__}: {said}"
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None  # the first frame is ours
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        lines = "(its traceback cannot be shown)"
    return storable_text(f"{_without_passwords(head[: 2 * MAX_ERROR])[:MAX_ERROR]}\n\n{_end(lines)}")


def _end(text: str) -> str:
    """Return as much of an error as is kept."""
    return _without_passwords(text[-2 * MAX_ERROR :])[-MAX_ERROR:]


def _without_passwords(text: str) -> str:
    """Return an error without the passwords of DSNs that it quotes: in its message, or in a line of code."""
    return _PASSWORD.sub(r"\1\2***", text)
