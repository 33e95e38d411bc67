"""Work on single jobs: claimed, finished, cancelled, retried; by hand, or by a worker within a job's own transaction.

Each function returns a function that starts the call (`Make`), since a call may be made again after a lost connection.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from dbjobq.errors import JobNotFound, StorageUnavailable
from dbjobq.storage.postgres.connect.way import Way
from dbjobq.storage.postgres.rows import (
    ClaimRow,
    bodies_params,
    claims_of,
    clear_params,
    finish_params,
    with_data,
)
from dbjobq.storage.postgres.steps import Call, Make, Send, Sender
from dbjobq.storage.values import Claim, Outcome, known_form

__all__ = ["LOOK_OR_REPEAT", "Dequeuing", "cancel", "cancel_many", "finish", "retry", "retry_many"]

MOVING_TRIES: Final = 50
"""How often a statement is sent again if the job that it looked at was moving at that moment."""
MANY_TRIES: Final = 3
"""How often a statement is sent again for many jobs at once; jobs that others keep moving for longer are left."""
LOOK_OR_REPEAT: Final = "Look at the job, or make it again"
"""Advice for callers who cannot know whether a call has happened."""


class Dequeuing:
    """Claims jobs for one process. No heartbeat renews their leases: a lease's row has an end of its own.

    Args:
        send: Makes the steps.
        name: The name under which the process is registered, as a worker is.
    """

    def __init__(self, send: Sender, name: str) -> None:
        self._send, self._name = send, name
        self._number: int | None = None

    def dequeue(self, queue: str, lease: float) -> Make[Claim | None]:
        """Return the call that claims one due job for `lease` seconds."""
        drawn_before: list[int] = []

        def call(again: bool) -> Call[Claim | None]:
            known = {"queue": queue, "worker": self._number, "name": self._name}
            ((due, drawn, number, registered),) = yield self._send("dequeue_begin", known)
            if number is None:  # nobody has enqueued there
                return None
            if again and drawn_before:  # a first try may have claimed a job, and its answer was lost
                before = yield self._send("claimed", {"claims": drawn_before, "queue": number})
                if before:
                    return claims_of(before, {number: queue})[0]
            if not registered:
                ((self._number, _durable),) = yield self._send("register", {"name": self._name, "ttl": 0.0})
            drawn_before.append(drawn)
            if due is not None and due <= 0:
                yield from self._promote()
            params = {"queues": [number], "limit": 1, "lease": lease, "beat": None, "claim": drawn}
            params |= {"worker": self._number, "name": self._name}
            rows = yield from self._claim(params)
            if not rows and (yield self._send("rescue_needed"))[0][0]:  # perhaps no worker runs that would rescue
                yield self._send("rescue")
                rows = yield from self._claim(params)
            return next(iter(claims_of(rows, {number: queue})), None)

        return call

    def _promote(self) -> Generator[Send, Any, None]:
        """Make due jobs ready, a thousand in each step, in at most `MOVING_TRIES` steps."""
        for _ in range(MOVING_TRIES):
            ((more, _woken),) = yield self._send("promote", {"since": None})
            if not more:
                return

    def _claim(self, params: Mapping[str, Any]) -> Generator[Send, Any, Sequence[ClaimRow]]:
        for _ in range(MOVING_TRIES):
            rows = [ClaimRow._make(row) for row in (yield self._send("claim_by_hand", params))]
            if rows and rows[0].data is None and rows[0].type is not None:
                rows = with_data(rows, (yield self._send("bodies", bodies_params(rows, 1))))
            if not rows or rows[0].data is not None:
                return rows
            yield self._send("clear", clear_params(params["queues"], rows))
        return []


def finish(send: Sender, outcomes: Sequence[Outcome], way: Way) -> Make[set[str]]:
    """Return the call that writes results and returns the ids of the accepted ones; `way` knows the encoding."""

    def call(again: bool) -> Call[set[str]]:
        params = finish_params(outcomes, way.codec)
        accepted = {row[0] for row in (yield send("finish", params))}
        if again and len(accepted) < len(outcomes):
            accepted |= {row[0] for row in (yield send("accepted", params))}
        return accepted

    return call


def retry(send: Sender, job_id: str, delay: float) -> Make[bool]:
    """Return the call that makes an ended job pending."""
    ended: int | None = None

    def call(again: bool) -> Call[bool]:
        nonlocal ended
        known = known_form(job_id)
        for _ in range(MOVING_TRIES):
            sent = again and ended is not None
            if not sent:
                ((exists, ended),) = yield send("ended", {"id": known})
                if not exists:
                    raise JobNotFound(job_id)
                if ended is None:
                    return False
            ((revived, *_more),) = yield send("retry", {"id": known, "delay": delay, "ended": ended})
            if revived or sent:  # if not by this statement, then by an earlier one whose answer was lost
                return True
        raise StorageUnavailable(f"job {job_id} moves too fast to be retried; try again")

    return call


def cancel(send: Sender, job_id: str) -> Make[bool]:
    """Return the call that makes a pending or running job cancelled."""
    mark = _new_mark()

    def call(_: bool) -> Call[bool]:
        params = {"id": known_form(job_id), "mark": mark}
        for _again in range(MOVING_TRIES):
            ((cancelled, exists, ended, *_more),) = yield send("cancel", params)
            if not exists:
                raise JobNotFound(job_id)
            if cancelled or ended:
                return bool(cancelled)
        raise StorageUnavailable(f"job {job_id} moves too fast to be cancelled; try again")

    return call


def retry_many(send: Sender, ids: Sequence[str], delay: float) -> Make[int]:
    """Return the call that does to some hundred jobs what `retry` does to one."""

    def call(_: bool) -> Call[int]:
        ((revived, *_more),) = yield send("retry_many", {"ids": list(ids), "delay": delay})
        return int(revived)

    return call


def cancel_many(send: Sender, ids: Sequence[str]) -> Make[int]:
    """Return the call that does to some hundred jobs what `cancel` does to one."""
    mark = _new_mark()

    def call(_: bool) -> Call[int]:
        cancelled = 0
        for _again in range(MANY_TRIES):
            ((cancelled, exist, ended, *_more),) = yield send("cancel_many", {"ids": list(ids), "mark": mark})
            if cancelled + ended >= exist:
                break
        return int(cancelled)

    return call


def _new_mark() -> int:
    """Return a number that marks a call's own cancellations; it is below zero, unlike the numbers of claims."""
    return -1 - secrets.randbits(62)
