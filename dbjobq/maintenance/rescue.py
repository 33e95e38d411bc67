"""Rescue: jobs of workers that are gone go back to the queue, or fail where no retry is left. One attempt each.

To look whether there are any is cheap. To take them back may take long, where there are many, or where the commit that
wakes others waits behind one that waits for a standby.
"""

from __future__ import annotations

from typing import Final

from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_DEAD, JOB_RESCUED
from dbjobq.hooks import tell_rescued
from dbjobq.maintenance.duty import Duty
from dbjobq.storage.worker_port import Pulse

__all__ = ["Rescue"]

PROBE: Final = 0.25
"""The pause between looks for dead workers, as a share of the lease. A worker without a heartbeat lives for `TTL` of it
(runtime/trust.py), and the sum of both is less than one: the jobs of a dead worker run elsewhere within its lease."""


class Rescue(Duty):
    """The duty to rescue what dead workers held."""

    name = "rescue"

    def every(self, lease: float) -> float:
        """See `Duty.every`."""
        return lease * PROBE

    def is_needed(self, pulse: Pulse) -> bool:
        """See `Duty.is_needed`."""
        return pulse.abandoned()

    def once(self, pulse: Pulse) -> int:
        """See `Duty.once`."""
        rescued = pulse.rescue()
        if rescued:
            tell_rescued(rescued)
        for job in rescued:
            emit(JOB_DEAD if job.dead else JOB_RESCUED, job)
        return len(rescued)
