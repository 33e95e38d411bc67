"""Lets a worker fall asleep without missing a job, and picks the notifications that concern it.

An enqueue notifies if its queue is `wanted`. A worker that falls asleep sets that flag; a busy one clears it, so that
enqueues do not notify in vain (docs/decisions/0004).
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
"""Seconds before the next claim while open transactions may have enqueued without notifying."""
LONGEST_LOOK_AGAIN: Final = 0.25
"""Seconds to which these waits grow."""


class Gate:
    """A worker's knowledge of the gate: whether enqueues into its queues notify.

    Args:
        queues: The queues that the worker serves.
    """

    def __init__(self, queues: ServedQueues) -> None:
        self._queues = queues
        self._writers: set[str] = set()
        self._look_in = 0.0
        self._sure = False  # whether `wanted` has stayed set since this worker looked for open writers
        self._cleared = False  # whether `wanted` was cleared since

    def doubt(self) -> None:
        """Reckon with others having cleared `wanted` while this worker could not hear it."""
        self._sure = False

    def busy_was_said(self) -> None:
        """Note that somebody has cleared `wanted`."""
        self._cleared = True

    async def fall_asleep(self, link: Link) -> Idle:
        """Have enqueues notify from now on, and return when to claim once more nevertheless.

        An enqueue whose transaction was open while `wanted` was set may not have seen it. Such transactions are looked
        for in `pg_locks`, and until they have ended this worker goes on claiming. Every worker that falls asleep does
        so, whichever of them has set the flag.
        """
        queues, start = self._queues, self._queues.start
        sure, self._sure = self._sure, True  # unless somebody clears `wanted` while the server is asked
        cleared, self._cleared = self._cleared, False
        # With many queues, each worker sets the flag of those that it has met, and of all when it begins.
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
        # The last of these transactions may have committed since the last claim, so there is one more claim.
        at_once = cleared or not self._writers
        self._look_in = 0.0 if at_once else min(max(FIRST_LOOK_AGAIN, self._look_in * 2), LONGEST_LOOK_AGAIN)
        return self._look_in


async def notices(listening: Listening, queues: ServedQueues, gate: Gate) -> AsyncGenerator[Notice]:
    """Yield the notifications that concern a worker of these queues; see `Session.notices`."""
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
