"""The workers' side of the port: what a worker needs of a storage, whichever storage that is.

A worker works through a `Session` (claims and results, on its event loop) and a `Pulse` (heartbeats and rescue, on a
thread of its own). Producers use neither (`base.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from dbjobq.errors import NotSupported
from dbjobq.service import NothingToDo, Service
from dbjobq.storage.values import Answer, Claim, Exchange, Idle, Notice, Outcome, Rescued

__all__ = ["Pulse", "Session"]


class Session(ABC):
    """One worker's exchange with the database, on its event loop.

    Raises StorageUnavailable when it must be reopened.
    """

    worker_id: str
    """The worker's name, as `Job.worker_id` has it."""

    @abstractmethod
    async def open(self) -> bool:
        """Connect, check the tables' version, and register the worker unless it is registered.

        Returns:
            Whether the worker is still registered as before, or was not registered before. False if the database does
            not know it any more (a failover that lost the last commits, a restore): then it holds nothing any more.
        """

    @abstractmethod
    def forget(self) -> None:
        """Forget the registration, whose leases have run out. The next `open` registers a new worker."""

    @abstractmethod
    async def step(self, exchange: Exchange) -> Answer:
        """Write results and claim jobs, in one transaction.

        The results are durable when this returns. They may be sent again after a lost connection.
        """

    @abstractmethod
    async def idle(self) -> Idle:
        """Tell the database that this worker is about to sleep, so that enqueues notify from now on."""

    @abstractmethod
    async def release(self, keep: Iterable[Claim] = ()) -> list[str]:
        """Release the jobs that this worker holds by the storage's account, but not by its own; return their ids.

        Args:
            keep: The claims that the worker knows of, and keeps.
        """

    async def close(self) -> None:  # noqa: B027 - nothing to do is an answer, too
        """Disconnect, if it has connections. Never raises, and never waits for a server that does not answer."""

    @abstractmethod
    def notices(self) -> AsyncIterator[Notice]:
        """Yield notifications from the moment of the call on; first a `work` notice, for jobs that came before.

        Within a second an `echo` or a `deaf` notice follows, which says whether notifications arrive at all.
        """

    def guard(self) -> Service:
        """Return what ends connections whose answer will not come, those of `notices` and `pulse`, too."""
        return NothingToDo("guard")  # for storages whose connections cannot hang

    @abstractmethod
    def pulse(self) -> Pulse:
        """Return a new connection beside the worker's event loop, for one thread."""


class Pulse(ABC):
    """A worker's calls beside its event loop; each object is used by one thread alone.

    The heartbeat's thread asks `beat`, `lost` and `abandoned`, whose answers come at once or not at all; the rest may
    wait, and is asked by others. The methods raise StorageUnavailable, and may then be called again.
    """

    @abstractmethod
    def beat(self, seconds: float) -> bool:
        """Prolong the worker's life to `seconds` from now; False if it had ended before."""

    @abstractmethod
    def lost(self, held: Sequence[Claim]) -> dict[Claim, bool]:
        """Return the claims of `held` that are not leased any more; True if the job was cancelled, False if taken."""

    @abstractmethod
    def abandoned(self) -> bool:
        """Tell whether there is anything to rescue. Writes nothing, and waits for nobody."""

    @abstractmethod
    def rescue(self) -> list[Rescued]:
        """Take back some hundred jobs of dead workers, each of which uses up an attempt; an empty list ends it."""

    def piece(self, statement: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Send the statement of a duty, by the name of its file in `sql/`; return its rows.

        Raises:
            NotSupported: This storage has no such statements.
        """
        raise NotSupported(f"{type(self).__name__} sends no statement of its own for {statement!r} ({params})")

    @abstractmethod
    def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Write results in the place of a blocked event loop; return the ids of the accepted ones.

        Results that somebody is just writing are passed over: a transaction that the blocked loop would have to end
        must not be waited for.
        """

    @abstractmethod
    def take_over(self, keep: Sequence[Claim], outcomes: Sequence[Outcome] = ()) -> tuple[set[str], list[str]]:
        """Go on in the place of an event loop that will not come back, in one transaction.

        The session's connections are cut first, since nobody reads their answers any more; a half-sent exchange ends
        with them. Then results are written, those of that exchange included, and jobs without a result are released.

        Args:
            keep: The claims that are known to be held, and are kept.
            outcomes: Results to write.

        Returns:
            The ids of the accepted results; and the ids of the released jobs, of which the loop had never heard.
        """

    def cut(self) -> None:  # noqa: B027 - nothing to do is an answer, too
        """End a call that is stuck, from another thread; nothing where none can be."""

    def close(self) -> None:  # noqa: B027 - as above
        """Disconnect; nothing where it has no connection of its own."""
