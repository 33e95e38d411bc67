"""From where a worker's looks begin: at the front, or behind the entries of jobs that are gone. Pure.

While somebody holds an old snapshot nothing that is deleted can be vacuumed, and a look from the front of an index
walks over the entries of every job since (docs/decisions/0003). A *near* look begins where the last one ended. It may
miss what came late to an earlier place (a transaction that was open for long, a job handed back) or a priority never
seen. A *whole* look misses nothing. They take turns:

- after a full batch near looks do for `HINT_LIFE`, and a whole one follows at once when they find too little;
- where whole looks are dear (the server says how long they take), they get a twentieth of the time, no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["Scan", "Start"]

HINT_LIFE: Final = 0.5
"""Seconds after a full batch in which near looks do."""
DEAR: Final = 0.001
"""Seconds of the server's time from which whole looks, two in a row, are dear: some 20,000 dead entries."""
A_JOB: Final = 0.0001
"""Seconds that claiming or finishing a job may add."""
SHARE: Final = 20
"""A dear look is followed by a rest of so many times what it took."""
LONGEST: Final = 5.0
"""Seconds; no rest exceeds it."""
LATE: Final = 1.0
"""Seconds by which a job may come late and still be found by a near look."""
UNMEASURED: Final = 8
"""Whole looks after which the next one is measured."""
MOST: Final = 100
"""The most queues and priorities to keep in mind."""


class Start(NamedTuple):
    """Where to begin in one queue and priority."""

    queue: int
    priority: int
    position: int


class Scan:
    """The places, and whose turn it is. Times are the caller's clock in seconds, but for `clock`, the server's."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], int] = {}
        self._since: float | None = None
        self._looked_at = self._whole_at = 0.0
        self._rest = self._took = 0.0
        self._unmeasured = 0
        self._emptied = self._owed = False

    def near(self, now: float, served: Sequence[int], *, promoting: bool) -> list[Start] | None:
        """Return where a near look begins, in the order of the queues served; None if it is to be a whole one.

        Args:
            now: The time.
            served: The queues.
            promoting: Whether scheduled jobs come to their places just before.
        """
        if now >= self._whole_at or (promoting and self.since(now) is None):
            return None
        latest = int(self._since * 1e6) if promoting and self._since else None
        turn = {queue: number for number, queue in enumerate(served)}
        starts = [
            Start(queue, priority, end if latest is None else min(end, latest))
            for (queue, priority), end in self._ends.items()
            if queue in turn
        ]
        return sorted(starts, key=lambda start: (turn[start.queue], -start.priority)) or None

    def came_back(self) -> None:
        """Take note that jobs go back to places before the last: a whole look is next, unless those are dear."""
        if not self._rest:
            self._whole_at = 0.0

    def since(self, now: float) -> float | None:
        """Return the server's time before which no scheduled job is due, at a near look; None: look at all of them."""
        return self._since if self._rest and now < self._whole_at else None

    def whole_in(self, now: float) -> float | None:
        """Return the seconds until a whole look must follow a near one that found too little."""
        return max(self._whole_at - now, 0.0) if self._owed else None

    def wants_measure(self) -> bool:
        """Whether the next look should be measured, if it is a whole one."""
        return self._took > DEAR or self._unmeasured >= UNMEASURED

    def looked(self, now: float, ends: Mapping[tuple[int, int], int], *, near: bool, full: bool) -> bool:
        """Take note of a look; return whether a whole one is to follow at once.

        Args:
            now: When it began.
            ends: The last position it found, by queue and priority.
            near: Whether it was a near one.
            full: Whether it found as much as was wanted.
        """
        self._looked_at, self._emptied = now, not full
        self._ends |= ends
        if len(self._ends) > MOST:
            self._ends.clear()
        if not near:
            self._unmeasured += 1
            self._whole_at = now + max(self._rest, HINT_LIFE if full else 0.0)
        self._owed = near and not full and self._rest > 0
        return near and not full and not self._rest

    def measured(self, now: float, seconds: float, jobs: int) -> None:
        """Take note of what the last look, a whole one, took of the server's time, and of the jobs it moved."""
        before, self._took = self._took, seconds - jobs * A_JOB
        took = min(before, self._took)  # a busy machine makes one look slow, seldom two
        self._rest, self._unmeasured = min(took * SHARE, LONGEST) if took > DEAR else 0.0, 0
        self._whole_at = max(self._whole_at, now + self._rest)

    def emptied(self, now: float, clock: float) -> None:
        """If the last look left nothing that it could find, later ones need not look further back than it.

        Args:
            now: The time.
            clock: The server's at this moment, or before.
        """
        if not self._emptied:
            return
        position = int((clock - (now - self._looked_at) - LATE) * 1e6)
        self._ends = {group: max(end, position) for group, end in self._ends.items()}

    def scheduled(self, clock: float, next_due: float | None) -> None:
        """Take note of the seconds until the next scheduled job is due, and of the server's time when it was asked."""
        self._since = clock + min(next_due or 0.0, 0.0) - LATE
