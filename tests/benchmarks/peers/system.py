"""What every system must be able to do to be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from typing import Any, ClassVar, LiteralString

__all__ = ["Queue", "Row", "System", "chunks"]

Row = Mapping[str, Any]
"""The arguments of one job: `number` and `padding`."""


class System(ABC):
    """One of them, in a database of its own.

    Args:
        dsn: That database.
        database: Its name.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    """What has to be installed."""
    settings: ClassVar[str]
    """How it is used here, for people."""
    share: ClassVar[float] = 1.0
    """How many of the jobs it gets in bulk: slow systems are not waited for."""
    left: ClassVar[LiteralString]
    """SQL: whether there is a job that has not ended."""
    clear: ClassVar[LiteralString]
    """SQL that deletes all jobs, and their history."""

    def __init__(self, dsn: str, database: str) -> None:
        self.dsn, self.database = dsn, database

    @classmethod
    def installed(cls) -> str | None:
        """Return its version; None if it is not installed."""
        return version(cls.package) if find_spec(cls.package) else None

    @abstractmethod
    def create(self) -> None:
        """Make its tables, as its documentation says."""

    @abstractmethod
    def enqueue_each(self, handler: str, rows: Iterable[Row]) -> None:
        """Enqueue jobs one by one, each durable before the next; `handler` is one of `handlers.HANDLERS`."""

    @abstractmethod
    def enqueue_many(self, handler: str, rows: Iterable[Row]) -> None:
        """Enqueue jobs in the best way it has for many."""

    @abstractmethod
    def close(self) -> None:
        """Give up what enqueueing has opened."""


class Queue(System):
    """One that has workers, in processes of their own."""

    has_threads: ClassVar[bool] = True
    """They run functions that are no coroutines, too."""

    @abstractmethod
    async def work(self) -> None:
        """Run jobs until this process is killed."""


def chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield rows, so many at a time."""
    rest = iter(rows)
    while chunk := list(islice(rest, size)):
        yield chunk
