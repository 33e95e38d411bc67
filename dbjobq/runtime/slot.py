"""What a slot of the executor holds, for those who look at it from outside or run its job."""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from dbjobq.jobs.context import JobContext
from dbjobq.runtime.threads import Chunk
from dbjobq.storage.values import Claim

__all__ = ["Slot", "Verdict"]

Verdict: TypeAlias = Literal["lost", "fenced", "released"]
"""Cancelled, or given to another worker; the lease is over; handed back."""


class Slot:
    """One of the jobs that run at once."""

    __slots__ = ("chunk", "claim", "connection", "context", "relieved", "task", "verdict")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.claim: Claim | None = None
        """The job that is awaited here."""
        self.context: JobContext | None = None
        self.connection: object | None = None
        """That of its transaction, if it has one."""
        self.chunk: Chunk | None = None
        """The `def` jobs that run for this slot on a thread."""
        self.relieved = False
        """Another slot has taken its place: it ends with its job."""
        self.verdict: Verdict | Literal[""] = ""
        """Why the job was cancelled from outside: its outcome is not this worker's to write, or is written already."""

    def running(self) -> Claim | None:
        """Return the job that runs here at this moment."""
        chunk = self.chunk  # once: other threads ask, too
        return self.claim if chunk is None else chunk.claim
