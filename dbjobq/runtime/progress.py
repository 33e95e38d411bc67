"""The last word of each running job about its progress, kept until the next exchange with the database writes it."""

from __future__ import annotations

from contextlib import suppress

from dbjobq.storage.values import Claim

__all__ = ["Progress"]


class Progress:
    """What running jobs have said with `ctx.progress` since the last exchange. Any thread may add to it."""

    def __init__(self) -> None:
        self._said: dict[Claim, str] = {}

    def say(self, claim: Claim, said: str) -> None:
        """Keep what a job says of itself, as JSON text; what it said before is of no interest any more."""
        self._said[claim] = said

    def take(self) -> dict[Claim, str]:
        """Return what was said since the last call."""
        taken: dict[Claim, str] = {}
        with suppress(KeyError):  # one by one: threads add to it meanwhile
            while True:
                claim, said = self._said.popitem()
                taken.setdefault(claim, said)
        return taken
