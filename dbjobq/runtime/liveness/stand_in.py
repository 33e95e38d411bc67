"""Writes in the place of an event loop that is blocked what that should have written (loop_watch.py says what).

In a thread of its own, beside the heartbeat's: what is written here is durable, so it waits for the disk and for
standbys, and for locks. No heartbeat may wait with it.
"""

from __future__ import annotations

from typing import Final

from dbjobq.events.bus import emit
from dbjobq.events.names import CLAIMS_RECOVERED
from dbjobq.runtime.liveness.beside import Beside
from dbjobq.runtime.liveness.loop_watch import Watch
from dbjobq.storage.worker_port import Pulse

__all__ = ["StandIn"]

LOOP_CHECK_EVERY: Final = 0.5
"""Seconds between looks at the event loop and at what runs, at most."""


class StandIn(Beside):
    """The thread. While the loop comes round it has no connection.

    Args:
        pulse: Its connection.
        watch: Says what is to be written while the loop is blocked; and when there is nothing left to live for.
        seconds: The worker's lease: the shorter it is, the sooner the loop is looked at again.
    """

    def __init__(self, pulse: Pulse, watch: Watch, seconds: float) -> None:
        super().__init__("watch", pulse, lambda: watch.over)
        self._watch, self._every = watch, min(seconds * 0.07, LOOP_CHECK_EVERY)

    def _pause(self) -> float:
        return self._every

    def _work(self, late: float) -> None:
        outcomes = self._watch.look(late)
        if (keep := self._watch.keeps()) is not None:
            accepted, released = self._pulse.take_over(keep, outcomes)
            self._watch.wrote(outcomes, accepted)
            self._watch.took_over()
            if released:
                emit(CLAIMS_RECOVERED, jobs=released)
        elif outcomes:
            self._watch.wrote(outcomes, self._pulse.finish(outcomes))
