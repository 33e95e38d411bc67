"""Logs what keeps a worker from its database, once each, and paces its attempts to connect again."""

from __future__ import annotations

import random
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import Event, emit
from dbjobq.events.names import DATABASE_LOST, DATABASE_REFUSES, DATABASE_RESTORED, DATABASE_UNAVAILABLE
from dbjobq.runtime.backoff import ReconnectBackoff
from dbjobq.runtime.trust import now

__all__ = ["Outage"]

TROUBLES: Final = 10
"""The most lines about one outage."""


class Outage:
    """The outages of one worker. Used on its event loop."""

    def __init__(self) -> None:
        self._backoff = ReconnectBackoff()
        self._troubles = set[str]()
        self.reconcile_at = float("inf")
        """When to give back what claims took whose replies were lost; infinity for never."""
        self._reconciled = False

    def lost(self, error: StorageUnavailable) -> None:
        """Log what is in the way. That may become another thing: each is logged once."""
        if error.answered or not self._troubles:
            self._log(DATABASE_REFUSES if error.answered else DATABASE_LOST, error)

    def goes_on(self, error: StorageUnavailable) -> None:
        """Log why no new connection can be made."""
        self._log(DATABASE_UNAVAILABLE, error)

    def over(self) -> None:
        """Log that the database does again what it is asked for, if it did not."""
        if self._troubles:
            emit(DATABASE_RESTORED)
            self._troubles = set[str]()

    def pause(self) -> float:
        """Return the seconds until the next attempt to connect."""
        return self._backoff.next(random.random())  # noqa: S311 - spread, not secrecy

    def at_work(self) -> None:
        """Note that an exchange has succeeded."""
        self.over()
        self._backoff.reset()

    def connected(self) -> None:
        """Note a new connection: claims may have taken jobs whose replies were lost with the old one."""
        self.reconcile_at, self._reconciled = now(), False

    def reconciled(self, again_after: float) -> None:
        """Note that it is done: once at once, and once more when even a claim that came late must have ended.

        Args:
            again_after: Seconds until then.
        """
        self.reconcile_at = float("inf") if self._reconciled else self.reconcile_at + again_after
        self._reconciled = not self._reconciled

    def _log(self, event: Event, error: StorageUnavailable) -> None:
        if str(error) not in self._troubles and len(self._troubles) < TROUBLES:
            emit(event, error=str(error))
            self._troubles.add(str(error))
