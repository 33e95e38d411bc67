"""Decides how many jobs to claim and hold, from how long jobs take, by type and on the whole. Pure.

Claiming ahead saves a round trip for each job, and is bounded in time: a job that is held must start soon, or another
worker could have run it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from dbjobq.storage.values import Claim

__all__ = ["ALONE", "BATCH", "LARGE", "SLICE", "SPACE", "UNSTARTED", "Means", "Pace"]

BATCH: Final = 500
"""The most jobs in one claim: beyond that nothing is gained."""
LARGE: Final = 2**14
"""Bytes of arguments from which a job counts for `SPACE`."""
SPACE: Final = 2**26
"""Bytes of large arguments that a worker holds at most, beyond one job, started or not: 64 MiB. They are in memory
twice at least, as text and decoded."""
ALONE: Final = 1.0
"""Seconds that a suspect job, with which a worker has died, runs before another suspect is claimed."""
PREFETCH: Final = 0.03
"""Seconds of work to claim ahead for a slot."""
LONG_TO_PREFETCH: Final = 0.02
"""Seconds beyond which jobs are too long to be claimed ahead at all."""
SLICE: Final = 0.002
"""Seconds of short jobs after which a slot lets the rest of the event loop run; also the worth of a thread's chunk."""
UNSTARTED: Final = 0.1
"""Seconds after which a job that was claimed ahead and is not started is handed back: another worker may be idle."""
CAREFUL: Final = 3
"""Claims without claiming ahead, after a claim that brought a job which must not wait."""
GUESS: Final = 0.05
"""Seconds that a job of unknown type is taken to need: too long for claiming ahead."""


class Means:
    """Running means of the seconds that jobs take, by type and on the whole."""

    def __init__(self) -> None:
        self._types: dict[str, float] = {}
        self.mean = GUESS
        """The mean of the latest jobs, whatever their types."""

    def took(self, type_: str, jobs: int, seconds: float) -> None:
        """Record that `jobs` jobs of one type, one after the other, took `seconds`."""
        each, weight = seconds / jobs, min(1.0, 0.2 + 0.05 * jobs)  # one job says little, sixteen say all
        known = self._types.get(type_, each)
        self._types[type_] = known + (each - known) * weight
        self.mean += (each - self.mean) * weight

    def of(self, type_: str) -> float:
        """Return the seconds that a job of this type takes, as far as they are known."""
        return self._types.get(type_, self.mean)

    def all_of(self, types: Iterable[str]) -> float:
        """Return the seconds that jobs of these types take, one after the other."""
        return sum(self.of(type_) * jobs for type_, jobs in Counter(types).items())


class Pace(Means):
    """Decides how many jobs to claim and to hold, by how much of a slot's time jobs take.

    Args:
        slots: How many jobs run at once.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self._careful = self._singly = 0

    def stuck(self) -> None:
        """Claim none ahead for now: jobs that were claimed ahead did not start, since one before them takes long."""
        self.mean = max(self.mean, UNSTARTED)

    @property
    def singly(self) -> bool:
        """Whether to claim jobs one by one, since a suspect, with which a worker has died, came lately."""
        return self._singly > 0

    def ahead(self, waiting: Sequence[str], running: Iterable[str]) -> int:
        """Return how many jobs to claim beyond those for which a slot is free: at most a batch, behind at most another.

        Then the database can be at the next batch while the slots run the one in hand.

        Args:
            waiting: The types of the jobs that are held and not started.
            running: The types of the jobs that run: behind a long one nothing starts soon.
        """
        if self.mean >= LONG_TO_PREFETCH or self._careful > 0 or len(waiting) > BATCH:
            return 0
        slots = self.slots - sum(self.of(type_) >= LONG_TO_PREFETCH for type_ in running)
        spare = PREFETCH * slots - self.all_of(waiting)
        most = min(int(spare / max(self.mean, 1e-6)), BATCH)
        return most if most >= len(waiting) else 0  # not before half of what is held has started

    def hold(self, free: int, waiting: Sequence[str], claims: Sequence[Claim]) -> int:
        """Return how many of the jobs just claimed to hold, in their order; the rest is to be handed back.

        Behind the jobs for which a slot is free, others may wait if they will start soon. A job without a retry left
        may not wait, and none may wait behind a suspect: when a worker dies, each job that it holds loses an attempt.

        Args:
            free: How many slots are free.
            waiting: The types of the jobs that are held and not started.
            claims: The jobs just claimed.
        """
        room, of = UNSTARTED * self.slots - self.all_of(waiting), self.of
        self._careful -= 1
        self._singly = CAREFUL if any(claim.suspect for claim in claims) else self._singly - 1
        for number, claim in enumerate(claims):
            if claim.fragile:
                room, self._careful = 0.0, CAREFUL
            if room <= 0 and number >= free:
                return number
            room -= of(claim.type)
        return len(claims)
