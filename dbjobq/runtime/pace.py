"""What jobs take, by type and on the whole, and how many are worth holding for it. Pure: told, not measured, here.

Claiming ahead saves a round trip for each job, and is bounded in time: what is held must start soon, or somebody
else could have run it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from dbjobq.storage.values import Claim

__all__ = ["ALONE", "BATCH", "LARGE", "SPACE", "UNSTARTED", "Means", "Pace"]

BATCH: Final = 500
"""The most jobs in one claim: beyond that nothing is gained."""
LARGE: Final = 2**14
"""Bytes of data from which a job counts for `SPACE`."""
SPACE: Final = 2**26
"""Bytes of large data that a worker holds at most, beyond one job, whether started or not: 64 MiB. It has them at least
twice, as text and as what the text says."""
ALONE: Final = 1.0
"""Seconds that a job which was perhaps the death of a worker runs before another of its kind is claimed."""
PREFETCH: Final = 0.03
"""Seconds of work to claim ahead for a slot."""
LONG: Final = 0.02
"""Jobs that take longer than this many seconds are not claimed ahead at all."""
UNSTARTED: Final = 0.1
"""Seconds after which what was claimed ahead, but is not started, goes back: somebody else may be idle."""
CAREFUL: Final = 3
"""Claims without claiming ahead, after one that brought a job which must not wait."""
GUESS: Final = 0.05
"""Seconds that a job takes while nothing is known: too long for claiming ahead."""


class Means:
    """Running means of what jobs take, by type and on the whole, in seconds."""

    def __init__(self) -> None:
        self._types: dict[str, float] = {}
        self.mean = GUESS
        """Of the jobs of late, whatever their types."""

    def took(self, type_: str, jobs: int, seconds: float) -> None:
        """So many jobs of one type, one after the other, took so long."""
        each, weight = seconds / jobs, min(1.0, 0.2 + 0.05 * jobs)  # one says little, sixteen say all
        known = self._types.get(type_, each)
        self._types[type_] = known + (each - known) * weight
        self.mean += (each - self.mean) * weight

    def of(self, type_: str) -> float:
        """Return the seconds that a job of this type takes, as far as that is known."""
        return self._types.get(type_, self.mean)

    def all_of(self, types: Iterable[str]) -> float:
        """Return the seconds that jobs of these types take, one after the other."""
        return sum(self.of(type_) * jobs for type_, jobs in Counter(types).items())


class Pace(Means):
    """Decides how many jobs to claim and to hold, by what jobs take of a slot's time.

    Args:
        slots: How many jobs run at once.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self._slots = slots
        self._careful = self._singly = 0

    def stuck(self) -> None:
        """What was claimed ahead did not start: some job takes longer than its like. Claim none ahead for now."""
        self.mean = max(self.mean, UNSTARTED)

    @property
    def singly(self) -> bool:
        """Whether to claim jobs one by one: of late there was one that was perhaps the death of a worker."""
        return self._singly > 0

    def ahead(self, waiting: Sequence[str], running: Iterable[str]) -> int:
        """Return how many jobs to claim beyond those for which a slot is free: at most a batch, behind at most another.

        So the database can be at the next batch while the slots work off the one in hand.

        Args:
            waiting: The types of what is held and not started.
            running: The types of what runs: behind something long nothing starts soon.
        """
        if self.mean >= LONG or self._careful > 0 or len(waiting) > BATCH:
            return 0
        slots = self._slots - sum(self.of(type_) >= LONG for type_ in running)
        spare = PREFETCH * slots - self.all_of(waiting)
        most = min(int(spare / max(self.mean, 1e-6)), BATCH)
        return most if most >= len(waiting) else 0  # not before half of it is used up

    def hold(self, free: int, waiting: Sequence[str], claims: Sequence[Claim]) -> int:
        """Return how many of the jobs just claimed to hold, in their order; the rest is to go back.

        Behind those for which a slot is free may wait what will start soon. Nothing may wait that has no retry left,
        or behind a job that has been the death of a worker: when a worker dies, all that it holds is charged for it.

        Args:
            free: How many slots are free.
            waiting: The types of what is held and not started.
            claims: What was claimed.
        """
        room, of = UNSTARTED * self._slots - self.all_of(waiting), self.of
        self._careful -= 1
        self._singly = CAREFUL if any(claim.suspect for claim in claims) else self._singly - 1
        for number, claim in enumerate(claims):
            if claim.fragile:
                room, self._careful = 0.0, CAREFUL
            if room <= 0 and number >= free:
                return number
            room -= of(claim.type)
        return len(claims)
