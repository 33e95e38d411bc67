"""A slot of the executor: the record of one job that runs, for those who look at it from outside or run it."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from dbjobq.jobs.context import JobContext
from dbjobq.runtime.threads import Chunk
from dbjobq.storage.values import Claim

__all__ = ["Slot", "Verdict"]

Verdict: TypeAlias = Literal["cancelled", "taken", "fenced", "released"]
"""Why a job was ended from outside: cancelled; given to another worker; the lease was over; handed back, or what became
of it was written in the loop's place."""


class Slot:
    """Room for one of the jobs that run at once."""

    __slots__ = ("chunk", "claim", "connection", "context", "relieved", "task", "verdict")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.claim: Claim | None = None
        """The claim of the job that is awaited in this slot."""
        self.context: JobContext | None = None
        self.connection: object | None = None
        """The connection of the job's transaction, if it has one."""
        self.chunk: Chunk | None = None
        """The `def` jobs that run for this slot on a thread."""
        self.relieved = False
        """Whether another slot has taken this one's place, so that this one ends with its job."""
        self.verdict: Verdict | Literal[""] = ""
        """Why the job was cancelled from outside: its outcome is not this worker's to write, or is written already."""

    def running(self) -> Claim | None:
        """Return the claim of the job that runs in this slot at this moment."""
        chunk = self.chunk  # read once: this runs in other threads, too
        return self.claim if chunk is None else chunk.claim
