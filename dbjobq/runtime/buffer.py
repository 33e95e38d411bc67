"""The claims that wait: how many there are, how many more to claim, and which slots have nothing to do.

Claims wait in one queue for all slots, and behind the job that runs in the chunk of a thread. Any thread may take them
back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.pace import ALONE, BATCH, LARGE, SPACE, Pace
from dbjobq.runtime.slot import Slots
from dbjobq.runtime.trust import now
from dbjobq.storage.values import Claim

__all__ = ["Buffer"]

WAKES: Final = 2
"""How many slots wake at first, and how many more each of them wakes while there are jobs. A single slot can run a
batch of no-op jobs, and waking all the others for nothing would cost more than the jobs."""


class Buffer:
    """The claims of a worker that are not started, and the slots that have nothing to do.

    Args:
        slots: The worker's.
        pace: Judges how many claims are worth holding.
        alarm: Rung when a slot has nothing to do.
    """

    def __init__(self, slots: Slots, pace: Pace, alarm: Alarm) -> None:
        self._slots, self.pace, self._alarm = slots, pace, alarm
        self.claims: deque[Claim] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._alone_until = float("-inf")
        self._large = False

    @property
    def idle(self) -> int:
        """How many slots have nothing to do."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many claims are not started."""
        return len(self._waiting())

    def _waiting(self) -> list[str]:
        """Return the types of the claims that are not started."""
        chunks = (chunk.waiting for chunk in self._slots.chunks())
        return [*[claim.type for claim in self.claims], *(c.type for chunk in chunks for c, _ in tuple(chunk))]

    @property
    def busy(self) -> int:
        """How many slots are at work."""
        return len(self._slots) - len(self._idle)

    @property
    def settled(self) -> bool:
        """Whether the outcome of every claimed job is known, though some function may still run."""
        return self.waiting == 0 and len(self._idle) + sum(bool(s.verdict) for s in self._slots) >= len(self._slots)

    @property
    def holding(self) -> bool:
        """Whether the outcome of some claimed job is not handed over yet."""
        return bool(self.claims) or self.busy > 0

    def wants(self) -> int:
        """Return how many jobs to claim: one for each free slot, and some ahead while jobs are short."""
        if self.full:
            return 0
        waiting = self._waiting()
        free = max(0, self.idle - len(waiting))
        working = (slot.running() for slot in self._slots if not slot.relieved)
        ahead = self.pace.ahead(waiting, [claim.type for claim in working if claim is not None])
        return min(free + ahead, max(BATCH, free), 1 if self.pace.singly else BATCH + free)

    @property
    def full(self) -> bool:
        """Whether to claim nothing, though slots may be free.

        Either the held jobs leave no space for more arguments, or a suspect, with which a worker has died, has just
        begun: claimed together, suspects would die together again.
        """
        if self._alone_until > now() and any(claim.suspect for claim in self._holds()):
            return True
        if self._large:
            held = SPACE - self.space()
            self._large = held > 0
            return held >= SPACE
        return False

    def space(self) -> int:
        """Return for how many bytes of large arguments there is room."""
        return SPACE - sum(size for claim in self._holds() if (size := len(claim.data)) > LARGE)

    def _holds(self) -> list[Claim]:
        """Return the claims that are held and have not ended."""
        waiting = [claim for chunk in self._slots.chunks() for claim, _ in tuple(chunk.waiting)]
        return [*self.claims, *waiting, *self._slots.running()]

    def room(self, claims: list[Claim]) -> int:
        """Return how many of these claims to add, in their order; the others would wait for too long."""
        room = self.pace.hold(self.idle, self._waiting(), claims)
        alone = next((number for number, claim in enumerate(claims) if claim.suspect), room)
        return min(room, alone + 1)

    def add(self, claims: list[Claim]) -> None:
        """Take over claims, and let idle slots start at once."""
        if self.pace.singly and any(claim.suspect for claim in claims):
            self._alone_until = now() + ALONE
        self._large = self._large or any(len(claim.data) > LARGE for claim in claims)
        self.claims.extend(claims)
        self.wake()

    def take_back(self) -> list[Claim]:
        """Take all claims that are not started out of the buffer, and return them."""
        back: list[Claim] = []
        with suppress(IndexError):  # from behind, one by one: another thread may do this, and each is started or taken
            while True:
                back.append(self.claims.pop())
        back.reverse()
        for chunk in self._slots.chunks():
            back += chunk.take_back()
        return back

    def share(self) -> None:
        """Let idle slots start the claims that wait in the chunks of threads which a long job keeps busy."""
        if self._idle and not self.claims:
            for chunk in self._slots.chunks():
                self.claims.extend(chunk.take_back())
            self.wake()

    def wake(self, taken: int = 0) -> None:
        """Wake some slots, each of which wakes others; `taken` claims of the buffer are spoken for."""
        for _ in range(min(WAKES, len(self._idle), len(self.claims) - taken)):
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Return when there may be claims; in a slot."""
        waiter = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        self._alarm.ring()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise
