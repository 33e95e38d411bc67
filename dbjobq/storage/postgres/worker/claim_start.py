"""Where in the index a claim starts reading: at the front, or just behind the last job claimed. Pure.

Background. Deleted index entries stay in the index until VACUUM removes them, and VACUUM cannot remove them while any
transaction holds a snapshot from before the delete. A claim that starts at the front then walks over one dead entry for
every job completed since (docs/decisions/0003).

Two kinds of claim take turns:

- A *full claim* starts at the front of the index. It finds every ready job.
- A *near claim* starts behind the position where the previous claim ended, for each queue and priority seen so far. It
  skips the dead entries, but it can miss a job that was committed late with an earlier position, a job that was handed
  back, and a priority that has not been seen yet.

After a full batch, claims are near ones for `NEAR_FOR` seconds; a near claim that comes back short is followed at once
by a full one. Where full claims are expensive (the server reports how long they take), they get at most one twentieth
of the time, and a job that only a full claim can find waits for the next one, at most `LONGEST_PAUSE` seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["ClaimStart", "StartPosition"]

NEAR_FOR: Final = 0.5
"""Seconds for which claims are near ones after a full batch."""
EXPENSIVE_CLAIM: Final = 0.001
"""Server seconds above which a full claim counts as expensive: the cost of about 20,000 dead entries."""
COST_PER_JOB: Final = 0.0001
"""Server seconds that claiming or completing one job may add to a measurement."""
PAUSE_FACTOR: Final = 20
"""An expensive full claim is followed by a pause of this many times its own duration."""
LONGEST_PAUSE: Final = 5.0
"""Upper bound, in seconds, for the pause between two expensive full claims."""
COMMIT_DELAY: Final = 1.0
"""Seconds a job may be committed after its position was drawn and still be found by a near claim."""
MEASURE_EVERY: Final = 8
"""Full claims after which the cost of the next one is measured."""
MAX_REMEMBERED: Final = 100
"""Upper bound for the pairs of queue and priority whose last position is remembered."""


class StartPosition(NamedTuple):
    """The position behind which a near claim starts reading, for one queue and priority."""

    queue: int
    priority: int
    position: int


class ClaimStart:
    """Decides where the next claim starts, from what the previous claims found and cost.

    All times are the caller's monotonic clock in seconds, except where an argument is called `server_time`.
    """

    def __init__(self) -> None:
        self._last_positions: dict[tuple[int, int], int] = {}
        self._none_due_before: float | None = None
        self._last_claim_at = self._next_full_claim_at = 0.0
        self._pause = self._last_cost = 0.0
        self._unmeasured_claims = 0
        self._found_everything = self._full_claim_due = False

    def near_starts(self, now: float, queues: Sequence[int], *, promoting: bool) -> list[StartPosition] | None:
        """Return where a near claim starts, in the order in which the queues are served; None for a full claim.

        Args:
            now: The current time.
            queues: The queues to claim from, in order of preference.
            promoting: Whether scheduled jobs become ready in the same exchange, and may take earlier positions.
        """
        if now >= self._next_full_claim_at or (promoting and self.none_due_before(now) is None):
            return None
        newest = int(self._none_due_before * 1e6) if promoting and self._none_due_before else None
        order = {queue: number for number, queue in enumerate(queues)}
        starts = [
            StartPosition(queue, priority, position if newest is None else min(position, newest))
            for (queue, priority), position in self._last_positions.items()
            if queue in order
        ]
        return sorted(starts, key=lambda start: (order[start.queue], -start.priority)) or None

    def jobs_handed_back(self) -> None:
        """Record that jobs return to earlier positions: a full claim is next, unless full claims are expensive."""
        if not self._pause:
            self._next_full_claim_at = 0.0

    def none_due_before(self, now: float) -> float | None:
        """Return the server's time before which no scheduled job can be due; None to consider every scheduled job."""
        return self._none_due_before if self._pause and now < self._next_full_claim_at else None

    def full_claim_in(self, now: float) -> float | None:
        """Return the seconds until a full claim must follow a near one that came back short; None if none must."""
        return max(self._next_full_claim_at - now, 0.0) if self._full_claim_due else None

    def wants_measure(self) -> bool:
        """Return whether the cost of the next full claim should be measured."""
        return self._last_cost > EXPENSIVE_CLAIM or self._unmeasured_claims >= MEASURE_EVERY

    def claimed(self, now: float, last: Mapping[tuple[int, int], int], *, near: bool, full_batch: bool) -> bool:
        """Record what a claim found; return whether a full claim is to follow at once.

        Args:
            now: When the claim began.
            last: The last position that it found, by queue and priority.
            near: Whether it was a near claim.
            full_batch: Whether it found as many jobs as were wanted.
        """
        self._last_claim_at, self._found_everything = now, not full_batch
        self._last_positions |= last
        if len(self._last_positions) > MAX_REMEMBERED:
            self._last_positions.clear()
        if not near:
            self._unmeasured_claims += 1
            self._next_full_claim_at = now + max(self._pause, NEAR_FOR if full_batch else 0.0)
        came_back_short = near and not full_batch
        self._full_claim_due = came_back_short and self._pause > 0
        return came_back_short and not self._pause

    def measured(self, now: float, seconds: float, jobs: int) -> None:
        """Record the cost of the last claim, a full one.

        Args:
            now: The current time.
            seconds: What the claim took of the server's time.
            jobs: How many jobs were claimed and completed in that time.
        """
        previous, self._last_cost = self._last_cost, seconds - jobs * COST_PER_JOB
        cost = min(previous, self._last_cost)  # a busy machine makes one claim slow, seldom two in a row
        self._pause = min(cost * PAUSE_FACTOR, LONGEST_PAUSE) if cost > EXPENSIVE_CLAIM else 0.0
        self._unmeasured_claims = 0
        self._next_full_claim_at = max(self._next_full_claim_at, now + self._pause)

    def nothing_left(self, now: float, server_time: float) -> None:
        """Let later near claims start no earlier than the last claim, if that one left nothing that it could find.

        Args:
            now: The current time.
            server_time: The server's time at this moment, or before.
        """
        if not self._found_everything:
            return
        position = int((server_time - (now - self._last_claim_at) - COMMIT_DELAY) * 1e6)
        self._last_positions = {group: max(last, position) for group, last in self._last_positions.items()}

    def scheduled_seen(self, server_time: float, next_due: float | None) -> None:
        """Record when the next scheduled job is due.

        Args:
            server_time: The server's time when it was asked.
            next_due: Seconds from then until that job is due, negative if it is overdue; None if there is none.
        """
        self._none_due_before = server_time + min(next_due or 0.0, 0.0) - COMMIT_DELAY
