"""The numbers of queues, by which rows name them: a process remembers them, and learns them when it must.

A statement that uses a number checks the queue's name, too: the database may have been put back since. A worker's
session keeps the names of the queues it serves for itself (worker/served.py), and reads them anew at each connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.repeats import Outdated
from dbjobq.storage.postgres.request import Learning, PostgresRequest
from dbjobq.storage.postgres.steps import Call, Sender

__all__ = ["QueueNumbers"]

INTERN_TRIES: Final = 50
"""How often a queue is looked for, and added if it is not there, while others add or remove it."""


class QueueNumbers:
    """The queues' numbers that a process remembers.

    Args:
        connections: Lends connections for the calls.
        send: Makes the steps.
    """

    def __init__(self, connections: Connections, send: Sender) -> None:
        self._connections, self._send = connections, send
        self._numbers: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __getitem__(self, name: str) -> int:
        """Return a queue's number. Raises Outdated if another call has just found that numbers are wrong."""
        if (number := self._numbers.get(name)) is None:
            raise Outdated
        return number

    def remember(self, rows: Iterable[tuple[int, str]]) -> None:
        """Remember numbers that were read."""
        self._numbers |= {name: number for number, name in rows}

    def forget(self) -> None:
        """Forget all numbers: one was wrong, so the database was put back, and the others may be wrong."""
        self._numbers = {}

    def before(self, name: str) -> Number:
        """Return the `Beforehand` of a call that uses a queue's number."""
        return Number(self, self._send, name)

    def intern(self, name: str, *, alone: bool = False) -> PostgresRequest[int]:
        """Describe the call that gives a queue its number; `alone`: see `PostgresRequest`."""

        def call(_: bool) -> Call[int]:
            for _try in range(INTERN_TRIES):
                for number, _ in (yield self._send("intern", {"name": name})):
                    return int(number)
            raise StorageUnavailable(f"queue {name!r} could not be added; try again")

        unsure = "Make it again with the same id or unique_key, and it has happened once"
        return PostgresRequest(self._connections, call, alone=alone, unsure=unsure)


class Number:
    """Learns the number of a queue (`Beforehand`), which is made and committed before the transaction that uses it.

    For a call in a caller's transaction it waits for no connection of the pool: the caller may hold the last one.
    """

    __slots__ = ("_name", "_numbers", "_send")

    def __init__(self, numbers: QueueNumbers, send: Sender, name: str) -> None:
        self._numbers, self._send, self._name = numbers, send, name

    @property
    def known(self) -> bool:
        """See `Beforehand.known`."""
        return self._name in self._numbers

    def learn(self, *, anew: bool, callers: bool) -> Learning:
        """See `Beforehand.learn`."""
        if anew:
            self._numbers.forget()
        elif callers:
            self._numbers.remember((yield self._send("queues_named", {"names": [self._name]})))
            if self.known:
                return
        self._numbers.remember([((yield self._numbers.intern(self._name, alone=callers)), self._name)])
