"""Decides whether a failed call is made again, and after how long. Pure: the same for threads and event loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.deadline import Deadline
from dbjobq.storage.postgres.connect.errors import POOL_IS_FULL, cause_of, is_away, is_conflict, is_lost

__all__ = ["Outdated", "Repeats"]

TRIES: Final = 3
"""How often a call is tried whose connection is lost: the pool's next connection may be about to end, too."""
SHORTEST_AWAY_PAUSE: Final = 0.05
"""Seconds before the second try while something answers that the server is away."""
LONGEST_AWAY_PAUSE: Final = 1.0
"""Seconds to which the pauses between such tries grow. They go on for as long as the call has time."""
LAST_TRY: Final = 0.5
"""Seconds that the last of those tries has, at most a quarter of the call's time."""
CHANGES: Final = 5
"""How often a call learns what it needs to know: more than once only if the database was put back meanwhile."""
_CHANGES_TOO_FAST: Final = "the numbers of queues change faster than they can be learned; nothing was stored, try again"


class Outdated(Exception):  # noqa: N818 - never seen by a caller
    """Something that this process remembers of the database is wrong. Nothing has happened: learn it, and repeat."""


class Repeats:
    """Takes note of how each try of a call failed, and decides when there is another.

    Args:
        deadline: The call's deadline; None for a call that may take as long as it takes.
        repeat: Tells whether the call may be repeated.
        unsure: Advice for a caller who cannot know whether the call has happened; empty for a call that only reads.
        callers: Whether the call is part of a caller's transaction, which is the caller's to repeat.
    """

    def __init__(
        self, deadline: Deadline | None, repeat: Callable[[], bool], *, unsure: str = "", callers: bool = False
    ) -> None:
        self._deadline, self._repeat, self._unsure, self._callers = deadline, repeat, unsure, callers
        self._tries, self._changes = TRIES, CHANGES
        self._pause = SHORTEST_AWAY_PAUSE
        self.again = False
        """Whether a connection was lost, so that the next try must reckon with the call having happened."""
        self.anew = False
        """Whether the last try found that something is to be learned anew."""
        self._perhaps = False
        """Whether a connection was lost without an answer that rules out that the call has happened."""

    def after(self, error: Outdated | psycopg.Error) -> float:
        """Return the seconds to wait before the next try. Raises the error, or what it means, if there is no other."""
        self.anew = isinstance(error, Outdated)
        if isinstance(error, Outdated):
            self._changes -= 1
            if not self._changes:
                raise StorageUnavailable(_CHANGES_TOO_FAST) from None
            return 0.0
        if self._callers:
            raise error
        return self._after_failure(error)

    def _after_failure(self, error: psycopg.Error) -> float:
        deadline, lost = self._deadline, is_lost(error)
        away = deadline is not None and is_away(error)
        if deadline is not None and (isinstance(error, POOL_IS_FULL) or (lost and not deadline.left)):
            raise self._out_of_time(deadline, error, perhaps=(lost and not away) or self._perhaps) from error
        if not away:
            self._tries -= 1
        if not (self._tries and (lost or is_conflict(error)) and self._repeat()):
            raise error
        self.again |= lost
        self._perhaps |= lost and not away
        if deadline is None or not away:
            return 0.0
        spare = deadline.left - min(LAST_TRY, deadline.seconds / 4)
        if spare <= 0:  # a try without time would be cut, and nobody could say whether the call had happened
            raise self._out_of_time(deadline, error, perhaps=self._perhaps) from error
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_AWAY_PAUSE)
        return min(pause, spare)

    def _out_of_time(self, deadline: Deadline, error: psycopg.Error, *, perhaps: bool) -> StorageUnavailable:
        within = f"within {deadline.seconds:g} s"
        said = f"PostgreSQL answered: {cause_of(error)}" if is_away(error) else ""
        if not perhaps:
            away = error.__cause__  # why the pool could make no connection
            why = said or (
                f"PostgreSQL cannot be reached ({cause_of(away)})"
                if away
                else "all the pool may have are in use (max_size)"
            )
            nothing = ". Nothing was stored" if self._unsure else ""
            return StorageUnavailable(f"no connection {within}: {why}{nothing}")
        unsure = f": the call may have happened, or not. {self._unsure}" if self._unsure else ""
        return StorageUnavailable(
            f"{said}, and nothing else {within}{unsure}" if said else f"PostgreSQL did not answer {within}{unsure}"
        )
