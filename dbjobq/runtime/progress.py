"""The latest progress of each running job, kept until the next exchange with the database writes it."""

from __future__ import annotations

from contextlib import suppress

from dbjobq.storage.values import Claim

__all__ = ["Progress"]


class Progress:
    """The progress that running jobs have told by `ctx.progress` since the last exchange. Any thread may add to it."""

    def __init__(self) -> None:
        self._said: dict[Claim, str] = {}

    def say(self, claim: Claim, said: str) -> None:
        """Keep a job's progress, as JSON text, in place of its earlier one."""
        self._said[claim] = said

    def take(self) -> dict[Claim, str]:
        """Return the progress that was told since the last call."""
        taken: dict[Claim, str] = {}
        with suppress(KeyError):  # one by one: threads add to it meanwhile
            while True:
                claim, said = self._said.popitem()
                taken.setdefault(claim, said)
        return taken
