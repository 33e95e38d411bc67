"""How a worker falls asleep without missing a job, and what of the notifications that it hears concerns it.

An enqueue notifies if its queue is `wanted`. A worker that falls asleep sets that; one that is busy clears it, so that
nobody notifies who need not (docs/decisions/0004).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from dbjobq.storage.postgres.listening import Listening
from dbjobq.storage.postgres.worker.link import Link
from dbjobq.storage.postgres.worker.served import ServedQueues
from dbjobq.storage.values import Idle, Notice

__all__ = ["Gate", "notices"]

FIRST_LOOK_AGAIN: Final = 0.02
LONGEST_LOOK_AGAIN: Final = 0.25
"""Seconds between two claims of a worker that waits for transactions which may have enqueued without notifying."""


class Gate:
    """What a worker knows of whether enqueues notify.

    Args:
        queues: Those that the worker serves.
    """

    def __init__(self, queues: ServedQueues) -> None:
        self._queues = queues
        self._writers: set[str] = set()
        self._look_in = 0.0
        self._sure = False  # that `wanted` has been set since this worker looked for open writers
        self._cleared = False  # it was cleared since

    def doubt(self) -> None:
        """Others may have said that enqueues need not notify, while this worker heard nothing."""
        self._sure = False

    def busy_was_said(self) -> None:
        """Somebody has said that enqueues need not notify."""
        self._cleared = True

    async def fall_asleep(self, link: Link) -> Idle:
        """Have enqueues notify from now on, and return when to claim once more all the same.

        One whose transaction was open while `wanted` was set may not have seen it: those are looked for in `pg_locks`,
        and until they have ended this worker goes on claiming. So does every worker that falls asleep, whoever of them
        was the one to set it.
        """
        queues, start = self._queues, self._queues.start
        sure, self._sure = self._sure, True  # unless somebody says otherwise while this is asked
        cleared, self._cleared = self._cleared, False
        # Of many queues those that others have met are set by them, or when this worker begins.
        name = "idle" if queues.wanted is None and not (queues.many and sure) else "idle_of"
        params = {**queues.params, "few": queues.few, "since": start.none_due_before(time.monotonic()), **link.who}
        ((changed, count, next_due, server_time, registered),) = await link.rows(name, params)
        now = time.monotonic()
        start.nothing_left(now, server_time)
        start.scheduled_seen(server_time, next_due)
        new = not queues.knows_all(count) and await queues.learn(link.rows)
        look_in = await self._look_for_writers(link, anew=not sure, cleared=cleared or changed)
        looks = [0.0 if new else None, look_in, queues.start.full_claim_in(now)]
        return Idle(min((look for look in looks if look is not None), default=None), next_due, registered=registered)

    async def _look_for_writers(self, link: Link, *, anew: bool, cleared: bool) -> float | None:
        anew, waited = anew or cleared, bool(self._writers)
        if not (anew or waited):
            return None
        writers: set[str] = set((await link.rows("writers"))[0][0] or ())
        self._writers = writers if anew else writers & self._writers
        if not (self._writers or waited or cleared):
            return None
        # The last of them may have committed since the last claim: that makes one more.
        at_once = cleared or not self._writers
        self._look_in = 0.0 if at_once else min(max(FIRST_LOOK_AGAIN, self._look_in * 2), LONGEST_LOOK_AGAIN)
        return self._look_in


async def notices(listening: Listening, queues: ServedQueues, gate: Gate) -> AsyncGenerator[Notice]:
    """Yield what concerns a worker of these queues: see `Session.notices`."""
    async with aclosing(listening.heard()) as everything:
        async for heard in everything:
            match heard.kind:
                case "listening":
                    gate.doubt()
                    yield Notice("work")
                case "echo" | "deaf":
                    yield Notice(heard.kind)
                case "cancelled":
                    yield Notice("cancel", heard.about)
                case "busy" if queues.concern(heard.about):
                    gate.busy_was_said()
                    queues.remind(heard.about)
                    yield Notice("work")
                case "work" if queues.concern(heard.about):
                    yield Notice("work")
                case _:
                    pass
