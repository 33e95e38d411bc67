"""The queues that one worker serves: their numbers, their names, and whose turn it is.

A worker of named queues serves them in the order given. A worker of all queues serves each in its turn; where they are
many, it learns none before it meets a job of it, and keeps in mind those that it met last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from dbjobq.storage.postgres.rows import RawRow, array, queues_of
from dbjobq.storage.postgres.worker.claim_start import ClaimStart

__all__ = ["Ask", "ServedQueues"]

Ask: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[list[tuple[Any, ...]]]]
"""Sends a statement by its name, and returns its rows: see `Link.rows`."""

FEW: Final = 32
"""The most queues of which a worker of all queues remembers every one."""
MET: Final = 100
"""Where there are more, the most queues that such a worker remembers: those from which jobs came last."""
LARGEST: Final = 2**31 - 1
"""The largest number that a queue can have."""
NAMES: Final = 10 * MET
"""The most names of queues that such a worker remembers."""


class ServedQueues:
    """See the module.

    Args:
        wanted: The names of the queues to serve, in this order; None for all.
    """

    def __init__(self, wanted: Sequence[str] | None) -> None:
        self.wanted = None if wanted is None else list(wanted)
        self.numbers: list[int] = []
        """The queues to claim from, in the order in which they are served now."""
        self.names: dict[int, str] = {}
        self.start = ClaimStart()
        """Where claims from these queues start."""
        self.many: _ManyQueues | None = None
        """The queues met last, once there are more than the worker can remember; None before that."""
        self.few = FEW
        """The most queues that the worker remembers, if it serves all."""
        self._stale = False

    @property
    def params(self) -> dict[str, str]:
        """The parameter by which a statement names the queues."""
        return {"queues": array(map(str, self.numbers))}

    @property
    def turn(self) -> int:
        """The number of the queue from which on the next claim of many queues searches."""
        return self.many.turn if self.many else 0

    async def refresh(self, ask: Ask) -> None:
        """Learn the queues if there are new ones; forget names when they have become too many."""
        if self._stale:
            await self.learn(ask)
        if self.many and len(self.names) > NAMES:
            self.names.clear()

    async def learn(self, ask: Ask) -> bool:
        """Read the queues to serve; return whether there are new ones."""
        if self.wanted is None:
            rows = await ask("queues", {"limit": self.few + 1})
        else:
            rows = await ask("queues_named", {"names": self.wanted})
        self._stale = False
        if self.wanted is None and len(rows) > self.few:
            new, self.many = self.many is None, self.many or _ManyQueues()
            return new
        self.names, before = dict(rows), self.numbers
        if self.wanted is None:
            self.numbers = [number for number in before if number in self.names]
            self.numbers += [number for number in self.names if number not in before]
        else:
            numbers = {name: number for number, name in self.names.items()}
            self.numbers = [numbers[name] for name in self.wanted]
        if set(self.numbers) == set(before):
            return False
        self.start = ClaimStart()  # which knows nothing of the new ones
        return True

    def knows_all(self, count: int) -> bool:
        """Return whether no queue is to be learned if there are `count` queues, counted to one more than `few`."""
        return self.many is not None or self.wanted is not None or count == len(self.names)

    def concern(self, said: str) -> bool:
        """Return whether a notification with this queue's number concerns the worker."""
        queue = _number(said)
        if self.wanted is not None:
            return queue in self.numbers
        self._stale = self.many is None and (self._stale or queue not in self.names)
        return True

    async def met(self, ask: Ask, rows: Iterable[RawRow], *, full_batch: bool) -> None:
        """With many queues, learn the names of those that jobs came from; after a full batch, go on to others."""
        if self.many is None or not (numbers := queues_of(rows)):
            return
        unknown = [number for number in numbers if number not in self.names]
        if unknown:
            found = await ask("queues_numbered", {"numbers": array(map(str, unknown))})
            self.names |= {number: f"(no queue {number})" for number in unknown} | dict(found)
        if full_batch:
            self.many.turn = numbers[0] + 1
        self.numbers = self.many.keep(numbers)

    def remind(self, said: str) -> None:
        """With many queues, serve the queue whose number a notification has, too."""
        if self.many is not None and (queue := _number(said)):
            self.numbers = self.many.keep([queue])

    def next_turn(self) -> None:
        """After a full batch of a worker that serves all of few queues, let the next queue come first."""
        if self.many is None and self.wanted is None and len(self.numbers) > 1:
            self.numbers = [*self.numbers[1:], self.numbers[0]]


def _number(said: str) -> int:
    """Return a queue's number; 0 if the text is no number: everybody who may connect may notify."""
    number = int(said) if len(said) <= 10 and said.isdecimal() else 0
    return number if number <= LARGEST else 0


class _ManyQueues:
    """The queues, of many, that jobs came from lately, and the one from which on the next claim searches."""

    def __init__(self) -> None:
        self.turn = 0
        self._met: dict[int, None] = {}

    def keep(self, numbers: Iterable[int]) -> list[int]:
        """Remember these queues; return those that were met last, in the order of their turns, and forget the rest."""
        for number in numbers:
            self._met.pop(number, None)
            self._met[number] = None
        while len(self._met) > MET:
            del self._met[next(iter(self._met))]
        return sorted(self._met, key=lambda number: (number < self.turn, number))
