"""A worker's trust window: until when it may start the jobs it holds, by a clock that goes on in a machine's sleep."""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["TrustWindow", "now"]

TTL: Final = 0.66
"""A worker's life without a heartbeat, as a share of the lease. The rest is the time other workers need to notice."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)  # a monotonic clock stands still while a VM is suspended


def now() -> float:
    """Return the seconds of a clock that goes on while the machine sleeps, where the system has one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class TrustWindow:
    """The trust window: until when this worker may start the jobs that it holds.

    Args:
        lease: The worker's lease in seconds.
    """

    def __init__(self, lease: float) -> None:
        self.ttl = lease * TTL
        self._until = float("-inf")
        self._lock = threading.Lock()
        self.life = 0
        """The number of the worker's life: each registration begins one. An answer about an earlier life is late."""

    def begin(self, sent_at: float) -> None:
        """Begin a life: the worker was registered anew by a statement that was sent at `sent_at`."""
        with self._lock:
            self.life += 1
            self._until = sent_at + self.ttl * 0.98

    def renewed(self, sent_at: float, life: int) -> None:
        """Prolong a life, by a statement that was sent at `sent_at`; the server counts from a later moment."""
        with self._lock:
            if life == self.life:
                self._until = max(self._until, sent_at + self.ttl * 0.98)

    def lapse(self, life: int) -> bool:
        """End a life that is over, as the server says; tell whether it is the present one."""
        with self._lock:
            if life == self.life:
                self._until = float("-inf")
            return life == self.life

    def alive(self) -> bool:
        """Tell whether a job that is held may still be started."""
        return now() < self._until

    def left(self) -> float:
        """Return the seconds until the window closes; below zero if it has."""
        return self._until - now()

    def wants_beat(self) -> bool:
        """Tell whether a claim should prolong the window: after an idle spell, or when heartbeats are late."""
        return now() > self._until - self.ttl / 2
