"""The port: what a queue and a worker need of a storage. Above it there is no SQL, below it no job functions.

A method describes a call and returns a `Request`; `run()` makes the call, `await arun()` makes it on an event loop. A
worker's side of the port is `worker_port.py`.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypedDict, TypeVar, Unpack

from dbjobq.errors import ConfigError, LeaseLost, NotSupported
from dbjobq.ids import JobIds
from dbjobq.models import Job, Status
from dbjobq.storage.values import (
    Bounds,
    Claim,
    Failure,
    Glance,
    Listing,
    NewJob,
    Outcome,
    QueueStats,
    known_form,
)
from dbjobq.storage.worker_port import Session

__all__ = ["BaseStorage", "Feature", "JobFilter", "Recipe", "Request"]

R_co = TypeVar("R_co", covariant=True)

Feature = Literal["connection", "listen", "transactional"]
"""Features that only some storages have: to write in a caller's transaction, to tell a worker what other processes do,
and to let a job write in the transaction that completes it."""


class Request(Protocol[R_co]):
    """A call that is described but not made: make it with `run()` or `await arun()`."""

    def run(self) -> R_co:
        """Make the call and wait for its answer."""
        ...

    async def arun(self) -> R_co:
        """Make the call on the running event loop."""
        ...


class Recipe(NamedTuple):
    """Plain values by which another process on this machine makes a storage for the same jobs, a password included."""

    module: str
    name: str
    arguments: dict[str, Any]
    functions: tuple[tuple[str, str, str], ...] = ()
    """The arguments that are functions: each argument's name, the function's module and its name there."""

    @classmethod
    def of(cls, module: str, name: str, arguments: Mapping[str, Any]) -> Recipe:
        """Return the recipe with these arguments, functions among them.

        Raises:
            ConfigError: Another process could not import one of the functions.
        """
        plain = {key: value for key, value in arguments.items() if not callable(value)}
        functions = [(key, *_home(key, value)) for key, value in arguments.items() if callable(value)]
        return cls(module, name, plain, tuple(functions))

    def make(self) -> BaseStorage:
        """Return the storage, not connected yet."""
        functions = {key: _found(module, name) for key, module, name in self.functions}
        storage: BaseStorage = _found(self.module, self.name)(**self.arguments, **functions)
        return storage


def _home(key: str, function: Any) -> tuple[str, str]:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if module != "__main__" and module in sys.modules and _found(module, name, None) is function:
        return module, name
    raise ConfigError(
        f"{key}={name or function!r}: the process of a job (executor='process') cannot find this function: "
        "define it at the top of a module that can be imported"
    )


def _found(module: str, name: str, *otherwise: Any) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, *otherwise)
    return found


class JobFilter(TypedDict):
    """The status, queue and type of jobs to be listed; None for any."""

    status: Status | None
    queue: str | None
    type: str | None


class BaseStorage(ABC):
    """The operations of every storage. Times are the database's; every step is atomic and fenced by its claim."""

    name: ClassVar[str]
    supports: ClassVar[frozenset[Feature]]

    def __init__(self) -> None:
        self._dequeued: dict[str, Claim] = {}
        self.dequeuer = f"{socket.gethostname()}:{os.getpid()}:dequeue"
        """The `Job.worker_id` of jobs that `dequeue` returns."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def require(self, feature: Feature) -> None:
        """Refuse a feature that this storage lacks.

        Raises:
            NotSupported: The storage lacks it. The message names the storage.
        """
        if feature not in self.supports:
            raise self._unsupported(feature)

    def _unsupported(self, feature: Feature) -> NotSupported:
        return NotSupported(f"{self.name} does not support {feature!r}: use PostgresStorage for it")

    def recipe(self) -> Recipe | None:
        """Return the recipe by which another process reaches the same jobs; None if it cannot."""
        return None

    # The claims that `dequeue` returned in this process, so that `complete(job.id)` knows which claim is meant.

    def remember(self, claim: Claim) -> None:
        """Keep a claim that `dequeue` returned. At most 10,000 are kept; the oldest go first."""
        if len(self._dequeued) >= 10_000:
            self._dequeued.pop(next(iter(self._dequeued)), None)
        self._dequeued[claim.id] = claim

    def claim_of(self, job: Job | str) -> Claim:
        """Return the claim under which a job is held: the `Job`'s own, or this process's last for an id.

        Raises:
            JobNotFound: The id is no job's id.
            LeaseLost: This process holds no claim for it.
        """
        if isinstance(job, Job):
            own = vars(job).get("_claim")
            if isinstance(own, Claim):
                return own
            job = job.id
        job_id = known_form(job)
        try:
            return self._dequeued[job_id]
        except KeyError:
            why = "it was not dequeued in this process, or has ended since. Give the Job that `dequeue` returned."
            raise LeaseLost(job_id, why) from None

    def forget_claim(self, claim: Claim) -> None:
        """Drop a claim that has ended, unless the job was dequeued again since."""
        if self._dequeued.get(claim.id) is claim:
            del self._dequeued[claim.id]

    @abstractmethod
    def check(self) -> Request[None]:
        """Connect and compare the tables' version. Raises ConfigError, SchemaError or StorageUnavailable."""

    @abstractmethod
    def enqueue(self, job: NewJob, connection: object | None = None) -> Request[str]:
        """Write one job; return the id of the job that is there: this one, or the unique key's holder."""

    @abstractmethod
    def enqueue_many(self, like: NewJob, data: Iterable[str], connection: object | None = None) -> Request[JobIds]:
        """Write many jobs in one transaction; return their ids.

        Args:
            like: A job with all that they have in common; its id and data are not used.
            data: The data of each job, as JSON text, consumed as they are sent.
            connection: The caller's connection, if they are to be part of its transaction.
        """

    @abstractmethod
    def dequeue(self, queue: str, lease: float) -> Request[Claim | None]:
        """Claim one due job for `lease` seconds."""

    @abstractmethod
    def finish(self, outcomes: Sequence[Outcome], connection: object | None = None) -> Request[set[str]]:
        """Write results; return the ids of those accepted. The others are no longer held."""

    @abstractmethod
    def retry(self, job_id: str, delay: float) -> Request[bool]:
        """Make a failed or cancelled job pending, attempts from 0. False in another status. Raises JobNotFound."""

    @abstractmethod
    def cancel(self, job_id: str) -> Request[bool]:
        """Make a pending or running job cancelled. False if it had ended. Raises JobNotFound."""

    @abstractmethod
    def retry_many(self, ids: Sequence[str], delay: float) -> Request[int]:
        """Do to some hundred jobs at once what `retry` does to one; return how many have become pending."""

    @abstractmethod
    def cancel_many(self, ids: Sequence[str]) -> Request[int]:
        """Do to some hundred jobs at once what `cancel` does to one; return how many were cancelled.

        Jobs that are being claimed or finished at that moment may be left.
        """

    @abstractmethod
    def get_job(self, job_id: str) -> Request[Job | None]:
        """Return one job."""

    @abstractmethod
    def failures(self, job_id: str, limit: int) -> Request[list[Failure]]:
        """Return how a job's last attempts failed, in their order; nothing where a storage keeps the last error alone.

        Args:
            job_id: The job's id.
            limit: How many attempts at most.
        """

    @abstractmethod
    def get_progress(self, job_id: str) -> Request[dict[str, Any] | None]:
        """Return what a running job last said with `ctx.progress`; None if there is nothing, or no such job."""

    @abstractmethod
    def list_jobs(self, limit: int | None, **wanted: Unpack[JobFilter]) -> Request[list[Job]]:
        """Return jobs, newest first.

        Args:
            limit: How many jobs at most; None for all.
            **wanted: The filter; None for any.
        """

    @abstractmethod
    def look(self, limit: int, bounds: Bounds, **wanted: Unpack[JobFilter]) -> Request[Listing]:
        """Return jobs as far as a bound allows, newest first: for people, who must not slow down the database.

        Args:
            limit: How many jobs at most.
            bounds: How far the search goes, and how much it returns.
            **wanted: The filter; None for any.
        """

    @abstractmethod
    def ids(self, before: str | None, **wanted: Unpack[JobFilter]) -> Request[tuple[list[str], str | None]]:
        """Return the ids of some jobs, and the id from which to go on; None at the end.

        Args:
            before: Only jobs older than this id; None for all.
            **wanted: The filter; None for any.
        """

    @abstractmethod
    def glance(self) -> Request[Glance]:
        """Count jobs by status and by queue, as far as that can be done soon, however many jobs there are."""

    @abstractmethod
    def stats(self) -> Request[dict[Status, int]]:
        """Count the jobs in each status, exactly, however long it takes."""

    @abstractmethod
    def queue_stats(self) -> Request[list[QueueStats]]:
        """Return the counts of every queue."""

    @abstractmethod
    def session(self, worker_id: str, queues: Sequence[str] | None, ttl: float) -> Session:
        """Return a worker's session, not yet open.

        Args:
            worker_id: The worker's name.
            queues: The queues it serves, in this order; None for all.
            ttl: Seconds its leases hold without a heartbeat.
        """

    def transaction(self) -> AbstractContextManager[Any]:
        """Return a connection in a transaction of its own, for a transactional job.

        Raises:
            NotSupported: The storage does not support "transactional".
        """
        raise self._unsupported("transactional")

    def atransaction(self) -> AbstractAsyncContextManager[Any]:
        """Return the same on the running event loop."""
        raise self._unsupported("transactional")

    def cut(self, connection: object) -> None:  # noqa: B027 - nothing to do is an answer, too
        """End a connection that was lent for a transaction, which is rolled back; from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections that are not an event loop's."""

    async def aclose(self) -> None:  # noqa: B027 - nothing to do is an answer, too
        """Close the running event loop's connections, if it has any."""
