"""Adds jobs: a single one by one statement, many by COPY.

A call (`Make`) may be started more than once: after a lost connection, and when the number of its queue was
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from dbjobq.errors import StorageUnavailable
from dbjobq.ids import JobIds, new_id
from dbjobq.storage.postgres.bulk import BulkRows
from dbjobq.storage.postgres.queue_numbers import QueueNumbers
from dbjobq.storage.postgres.repeats import Outdated
from dbjobq.storage.postgres.statements import Statements
from dbjobq.storage.postgres.steps import Call, CopyIn, Make, Send, Sender
from dbjobq.storage.values import NewJob

__all__ = ["REPEAT", "EnqueueMany", "enqueue_one"]

KEY_TRIES: Final = 50
"""How often the holder of a unique key is looked for while it changes."""
REPEAT: Final = "Make it again with the same id or unique_key, and it has happened once"
"""Advice for callers who cannot know whether a job was added."""


def enqueue_one(
    send: Sender, numbers: QueueNumbers, job: NewJob, *, plain: Callable[[Mapping[str, Any]], Send], callers: bool
) -> Make[str]:
    """Return the call that adds one job, and returns the id of the job that is there.

    Args:
        send: Makes the steps.
        numbers: The numbers of queues.
        job: The job. Its id is made before the call, so that a repeat after a lost connection makes no second one.
        plain: Makes the step for a job for which nothing has to be looked up.
        callers: Whether the call is part of a caller's transaction.
    """
    sure = False

    def call(again: bool) -> Call[str]:
        nonlocal sure
        params = {
            "id": job.id,
            "type": job.type,
            "data": job.data,
            "queue": numbers[job.queue],
            "name": job.queue,
            "sure": sure,
            "priority": job.priority,
            "max_retries": job.max_retries,
            "timeout": job.timeout,
            "notify": job.notify,
        }
        if job.plain and not again:
            stored = yield plain(params) if job.notify and not callers else send("enqueue_within", params)
            if stored:
                return job.id
            sure = callers
            raise Outdated
        params |= {"execute_at": job.execute_at, "delay": job.delay, "unique_key": job.unique_key}
        for _ in range(KEY_TRIES):
            rows = yield send("enqueue_checked", params)
            if not rows:
                continue
            if rows[0][0] is None:
                sure = callers
                raise Outdated
            found, new = str(rows[0][0]), rows[0][1]
            if new or again or job.own_id or found != params["id"]:
                return found
            params["id"] = new_id()  # the id was just made and never sent, so the job that has it is another's
        raise StorageUnavailable(f"unique_key={job.unique_key!r}: its holder changes too fast; try again")

    return call


class EnqueueMany:
    """Adds many jobs by COPY (`Make`): two for every 5,000 jobs, so that memory does not grow with their number.

    Args:
        statements: The statements for the schema.
        send: Makes the steps.
        numbers: The numbers of queues.
        like: A job with all that they have in common.
        data: The data of each job.
        callers: Whether the call is part of a caller's transaction.
    """

    def __init__(  # noqa: PLR0913 - what the call is made of
        self,
        statements: Statements,
        send: Sender,
        numbers: QueueNumbers,
        like: NewJob,
        data: Iterable[str],
        *,
        callers: bool,
    ) -> None:
        self._statements, self._send, self._numbers = statements, send, numbers
        self._like, self._data, self._callers = like, data, callers
        self._begun = self._sure = False

    def may_repeat(self) -> bool:
        """Tell whether the call may be made again: not after data were taken from their source."""
        return not self._begun

    def __call__(self, _: bool) -> Call[JobIds]:
        """Start the call."""
        like, number = self._like, self._numbers[self._like.queue]
        when = {"execute_at": like.execute_at, "delay": like.delay}
        beginning = yield self._send(
            "enqueue_many_begin", {**when, "queue": number, "name": like.queue, "sure": self._sure}
        )
        if not beginning:
            self._sure = self._callers
            raise Outdated
        ((position, due, later, _durable),) = beginning
        rows = BulkRows(like, queue=number, position=position, due=due, later=later, data=self._data)
        bodies = self._statements.copy("job", rows.BODY)
        places = self._statements.copy(*(("scheduled", rows.SCHEDULED) if later else ("ready", rows.READY)))
        self._begun = more = True
        while more:
            yield CopyIn(bodies, rows.bodies())
            yield CopyIn(places, rows.places())
            more = rows.more
        if rows.ids:
            yield self._send("notify", {"queue": number, "notify": like.notify})
        return rows.ids
