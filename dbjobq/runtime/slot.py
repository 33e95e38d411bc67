"""The slots of the executor: a record of each job that runs, for those who look at it from outside or run it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from dbjobq.jobs.context import JobContext
from dbjobq.runtime.threads import Chunk
from dbjobq.storage.values import Claim

__all__ = ["Slot", "Slots", "Verdict", "Whereabouts", "absorb"]

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


class Whereabouts(NamedTuple):
    """A job that runs, and where: as a task on the loop, or in a thread."""

    claim: Claim
    task: asyncio.Task[None] | None
    thread: int | None


class Slots(set[Slot]):
    """All slots of a worker. The worker's loop changes them; any thread may ask what runs."""

    def running(self) -> list[Claim]:
        """Return what runs at this moment."""
        return [claim for slot in tuple(self) if (claim := slot.running()) is not None]

    def runs(self, job_id: str) -> bool:
        """Tell whether a job runs here."""
        return any(claim.id == job_id for claim in self.running())

    def whereabouts(self) -> list[Whereabouts]:
        """Return what runs at this moment, and where."""
        found: list[Whereabouts] = []
        for slot in tuple(self):
            chunk, task = slot.chunk, slot.task
            if (claim := slot.running()) is not None:
                found.append(Whereabouts(claim, *((task, None) if chunk is None else (None, chunk.thread))))
        return found

    def not_ended(self, claims: Collection[Claim] | None = None) -> Iterator[tuple[Slot, Claim]]:
        """Yield the jobs that run and were not ended from outside, only these if any are given, with their slots."""
        for slot in tuple(self):
            claim = slot.running()
            if claim is not None and not slot.verdict and (claims is None or claim in claims):
                yield slot, claim

    def chunks(self) -> list[Chunk]:
        """Return what threads work on."""
        return [chunk for slot in tuple(self) if (chunk := slot.chunk) is not None]


async def absorb(task: asyncio.Task[None]) -> None:
    """Take what is left of a cancellation that was meant for the job, not for its slot's task."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task.cancelling():
        task.uncancel()
