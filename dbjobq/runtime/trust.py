"""Until when a worker may start what it holds, by a clock that goes on while the machine sleeps."""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["Lease", "now"]

TTL: Final = 0.66
"""A worker's life without a heartbeat, as a share of the lease: what is left is for being noticed."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)  # a monotonic clock stands still while a VM is suspended


def now() -> float:
    """Return seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Lease:
    """Until when this worker may start what it holds.

    Args:
        lease: Seconds, as the worker was told.
    """

    def __init__(self, lease: float) -> None:
        self.ttl = lease * TTL
        self._until = float("-inf")
        self._lock = threading.Lock()
        self.life = 0
        """Which life of the worker this is: each registration begins one. What is heard of an earlier one is late."""

    def begin(self, sent_at: float) -> None:
        """The worker was registered anew by a statement that was sent then."""
        with self._lock:
            self.life += 1
            self._until = sent_at + self.ttl * 0.98

    def renewed(self, sent_at: float, life: int) -> None:
        """A life was prolonged by a statement that was sent then: the server counted from a later moment."""
        with self._lock:
            if life == self.life:
                self._until = max(self._until, sent_at + self.ttl * 0.98)

    def lapse(self, life: int) -> bool:
        """A life is over, the server says; return whether it is this one."""
        with self._lock:
            if life == self.life:
                self._until = float("-inf")
            return life == self.life

    def alive(self) -> bool:
        """Tell whether a job that is held may still be started."""
        return now() < self._until

    def left(self) -> float:
        """Return the seconds until it is over; below zero if it is."""
        return self._until - now()

    def wants_beat(self) -> bool:
        """Tell whether a claim should prolong it: after an idle spell, or when heartbeats are late."""
        return now() > self._until - self.ttl / 2
