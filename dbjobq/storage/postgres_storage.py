"""`PostgresStorage`: every step of a queue is a statement in `sql/`, described here and made by `PostgresRequest`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import UTC
from typing import Any, ClassVar, Final, TypedDict, TypeVar, Unpack

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from dbjobq.errors import JobNotFound, StorageUnavailable
from dbjobq.ids import JobIds, new_id
from dbjobq.models import Job, Status
from dbjobq.storage.base import BaseStorage, Feature, JobFilter, Recipe
from dbjobq.storage.postgres import looks
from dbjobq.storage.postgres.bulk import BulkRows
from dbjobq.storage.postgres.connect.address import named_dsn, named_schema
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import Deadline, cut
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.prepared import Express
from dbjobq.storage.postgres.connect.way import Conninfo
from dbjobq.storage.postgres.request import Beforehand, Outdated, PostgresRequest
from dbjobq.storage.postgres.schema_version import check_version
from dbjobq.storage.postgres.statements import LOOKING_UP, Statements
from dbjobq.storage.postgres.steps import Call, CopyIn, Send
from dbjobq.storage.postgres.worker.rows import (
    ClaimRow,
    bodies_params,
    claims_of,
    clear_params,
    finish_params,
    with_data,
)
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.values import (
    Bounds,
    Claim,
    Failure,
    Glance,
    Listing,
    NewJob,
    Outcome,
    QueueStats,
    job_from_row,
    known_form,
    known_id,
)

__all__ = ["PostgresStorage"]

R = TypeVar("R")

_TRIES: Final = 50
"""How often a statement is sent again if the job that it looked at was moving at that moment."""


_REPEAT: Final = "Make it again with the same id or unique_key, and it has happened once"
_LOOK: Final = "Look at the job, or make it again"
"""Advice for callers who cannot know whether a call has happened."""


class _How(TypedDict, total=False):
    """How a request is made; see `PostgresRequest`."""

    first: Beforehand | None
    atomic: bool
    repeat: Callable[[], bool]
    bounded: bool
    alone: bool
    shared: bool
    unsure: str
    pinned: bool | None


class PostgresStorage(BaseStorage):
    """Jobs in PostgreSQL, 15 or later.

    Args:
        conninfo: A DSN or URL; a function that returns one, called for each new connection in a thread that is no
            event loop's, for passwords that change (docs/production.md); or a psycopg_pool pool to share. None reads
            `DBJOBQ_DSN`, then `DATABASE_URL`, then libpq's `PG*` variables; and `DBJOBQ_LISTEN_DSN` with them.
        schema: The tables' schema; None reads `DBJOBQ_SCHEMA`, and is `dbjobq` without it.
        listen_conninfo: A direct DSN where `conninfo` leads to a pooler such as PgBouncer in transaction mode.
        timeout: Seconds that a call has, waiting for a connection and repeats included; in bulk, that each piece of 250
            jobs has (docs/producers.md). Calls of the doctor, and of a job on `ctx.connection`, have no such bound.
        max_size: Connections in each pool. There is one pool for threads, and one for each event loop.
        durable: Whether acknowledged calls (enqueue, enqueue_many, cancel, retry, complete, fail) are on disk even if
            role or database have `synchronous_commit` off or local; higher levels are left as they are. If False, those
            settings count, so a crash of the server may take back the last moments. Workers' results are always
            durable.

    Nothing is connected before the first call. Close the storage when done, or use it as a context manager.

    Raises:
        ConfigError: The DSN cannot be parsed, or the schema's name cannot be used.
    """

    name: ClassVar[str] = "PostgresStorage"
    supports: ClassVar[frozenset[Feature]] = frozenset({"connection", "listen", "transactional"})

    def __init__(  # noqa: PLR0913 - settings
        self,
        conninfo: Conninfo | ConnectionPool[Any] | AsyncConnectionPool[Any] | None = None,
        *,
        schema: str | None = None,
        listen_conninfo: Conninfo | None = None,
        timeout: float = 10.0,
        max_size: int = 10,
        durable: bool = True,
    ) -> None:
        super().__init__()
        if conninfo is None and listen_conninfo is None:
            _, listen_conninfo = named_dsn()
        self.schema = named_schema(schema)
        self.durable = durable
        self.statements = Statements(self.schema, durable=durable)
        self.connections = Connections(
            conninfo, listen_conninfo=listen_conninfo, schema=self.schema, timeout=timeout, max_size=max_size
        )
        self._plain = "enqueue" if self.connections.says_its_needs else "enqueue_within"
        self._express = Express(self.statements[self._plain])
        self._queue_ids: dict[str, int] = {}
        self._dequeuer: int | None = None

    def __repr__(self) -> str:
        where = conninfo_to_dict(self.connections.way.conninfo)  # empty before a function was called
        return f"PostgresStorage({where.get('host', 'local')}/{where.get('dbname', '')}, schema={self.schema!r})"

    def recipe(self) -> Recipe:
        """See `BaseStorage.recipe`. A storage that shares a user's pool has a pool of its own in the other process."""
        return Recipe.of(__name__, "PostgresStorage", {**self.connections.arguments(), "durable": self.durable})

    def _request(
        self, make: Callable[[bool], Call[R]], *, connection: object | None = None, **how: Unpack[_How]
    ) -> PostgresRequest[R]:
        return PostgresRequest(self.connections, make, connection=connection, **how)

    def _send(
        self, name: str, params: Mapping[str, Any] | None = None, *, as_dicts: bool = False, binary: bool = False
    ) -> Send:
        return Send(self.statements[name], params or {}, as_dicts, binary)

    # Queues by number.

    def know_queue(self, number: int, name: str) -> None:
        """Remember a queue's number."""
        self._queue_ids[name] = number

    def know_queues(self, rows: Iterable[tuple[int, str]], wanted: str) -> bool:
        """Remember queues that were read; tell whether the wanted one is among them."""
        for number, name in rows:
            self.know_queue(number, name)
        return wanted in self._queue_ids

    def knows_queue(self, name: str) -> bool:
        """Tell whether a queue's number is remembered. A statement that uses it checks the name, too."""
        return name in self._queue_ids

    def _number(self, name: str) -> int:
        """Return a queue's number; raises Outdated if another call has just found that numbers are wrong."""
        if (number := self._queue_ids.get(name)) is None:
            raise Outdated
        return number

    def forget_queues(self) -> None:
        """Forget all numbers: one was wrong, so the database was put back, and the others may be wrong."""
        self._queue_ids = {}

    def look_for_queue(self, name: str) -> Send:
        """Return the statement whose rows `know_queues` takes."""
        return self._send("queues_named", {"names": [name]})

    def intern(self, name: str, *, alone: bool = False) -> PostgresRequest[int]:
        """Describe the call that gives a queue its number; `alone`: see `PostgresRequest`."""

        def call(_: bool) -> Call[int]:
            for _try in range(_TRIES):
                for number, _ in (yield self._send("intern", {"name": name})):
                    return int(number)
            raise StorageUnavailable(f"queue {name!r} could not be added; try again")

        return self._request(call, alone=alone, unsure=_REPEAT)

    # Enqueue.

    def check(self) -> PostgresRequest[None]:
        """See `BaseStorage.check`."""

        def call(_: bool) -> Call[None]:
            check_version((yield self._send("version")), self.schema)

        return self._request(call)

    def enqueue(self, job: NewJob, connection: object | None = None) -> PostgresRequest[str]:
        """See `BaseStorage.enqueue`.

        The id is made before the call, so that a repeat after a lost connection makes no second job.
        """
        sure = False

        def call(again: bool) -> Call[str]:
            nonlocal sure
            params = {
                "id": job.id,
                "type": job.type,
                "data": job.data,
                "queue": self._number(job.queue),
                "name": job.queue,
                "sure": sure,
                "priority": job.priority,
                "max_retries": job.max_retries,
                "timeout": job.timeout,
                "notify": job.notify,
            }
            if job.plain and not again:
                if connection is None and job.notify:
                    stored = yield Send(self.statements[self._plain], params, express=self._express)
                else:
                    stored = yield self._send("enqueue_within", params)
                if stored:
                    return job.id
                sure = connection is not None
                raise Outdated
            params |= {"execute_at": job.execute_at, "delay": job.delay, "unique_key": job.unique_key}
            for _ in range(_TRIES):
                rows = yield self._send("enqueue_checked", params)
                if not rows:
                    continue
                if rows[0][0] is None:
                    sure = connection is not None
                    raise Outdated
                found, new = str(rows[0][0]), rows[0][1]
                if new or again or job.own_id or found != params["id"]:
                    return found
                params["id"] = new_id()  # the id was just made and never sent, so the job that has it is another's
            raise StorageUnavailable(f"unique_key={job.unique_key!r}: its holder changes too fast; try again")

        return self._request(
            call, connection=connection, first=_Knowing(self, job.queue), shared=job.plain, unsure=_REPEAT
        )

    def enqueue_many(
        self, like: NewJob, data: Iterable[str], connection: object | None = None
    ) -> PostgresRequest[JobIds]:
        """See `BaseStorage.enqueue_many`. Two COPYs for every 5,000 jobs; memory does not grow with their number."""
        begun = sure = False

        def call(_: bool) -> Call[JobIds]:
            nonlocal begun, sure
            number = self._number(like.queue)
            when = {"execute_at": like.execute_at, "delay": like.delay}
            beginning = yield self._send(
                "enqueue_many_begin", {**when, "queue": number, "name": like.queue, "sure": sure}
            )
            if not beginning:
                sure = connection is not None
                raise Outdated
            ((position, due, later, _durable),) = beginning
            rows = BulkRows(like, queue=number, position=position, due=due, later=later, data=data)
            bodies = self.statements.copy("job", rows.BODY)
            places = self.statements.copy(*(("scheduled", rows.SCHEDULED) if later else ("ready", rows.READY)))
            begun = more = True
            while more:
                yield CopyIn(bodies, rows.bodies())
                yield CopyIn(places, rows.places())
                more = rows.more
            if rows.ids:
                yield self._send("notify", {"queue": number, "notify": like.notify})
            return rows.ids

        first = _Knowing(self, like.queue)
        return self._request(
            call, connection=connection, first=first, atomic=True, repeat=lambda: not begun, unsure=_REPEAT
        )

    # Work by hand.

    def dequeue(self, queue: str, lease: float) -> PostgresRequest[Claim | None]:
        """See `BaseStorage.dequeue`. The lease's row has an end of its own: no heartbeat renews it."""
        numbers: list[int] = []

        def call(again: bool) -> Call[Claim | None]:
            known = {"queue": queue, "worker": self._dequeuer, "name": self.dequeuer}
            ((due, drawn, number, registered),) = yield self._send("dequeue_begin", known)
            if number is None:  # nobody has enqueued there
                return None
            if again and numbers:  # a first try may have claimed a job, and its answer was lost
                before = yield self._send("claimed", {"claims": numbers, "queue": number})
                if before:
                    return claims_of(before, {number: queue})[0]
            if not registered:
                ((self._dequeuer, _durable),) = yield self._send("register", {"name": self.dequeuer, "ttl": 0.0})
            numbers.append(drawn)
            more, left = due is not None and due <= 0, _TRIES  # at most that many thousands of due jobs are made ready
            while more and left:
                left -= 1
                ((more, _woken),) = yield self._send("promote", {"since": None})
            params = {"queues": [number], "limit": 1, "lease": lease, "beat": None, "claim": drawn}
            params |= {"worker": self._dequeuer, "name": self.dequeuer}
            rows = yield from self._claim_one(params)
            if not rows and (yield self._send("rescue_needed"))[0][0]:  # perhaps no worker runs that would rescue
                yield self._send("rescue")
                rows = yield from self._claim_one(params)
            return next(iter(claims_of(rows, {number: queue})), None)

        unsure = "A job that it has claimed comes back after its lease"
        return self._request(call, unsure=unsure, pinned=True)

    def _claim_one(self, params: Mapping[str, Any]) -> Generator[Send, Any, Sequence[ClaimRow]]:
        for _ in range(_TRIES):
            rows = [ClaimRow._make(row) for row in (yield self._send("claim_by_hand", params))]
            if rows and rows[0].data is None and rows[0].type is not None:
                rows = with_data(rows, (yield self._send("bodies", bodies_params(rows, 1))))
            if not rows or rows[0].data is not None:
                return rows
            yield self._send("clear", clear_params(params["queues"], rows))
        return []

    def finish(self, outcomes: Sequence[Outcome], connection: object | None = None) -> PostgresRequest[set[str]]:
        """See `BaseStorage.finish`."""

        def call(again: bool) -> Call[set[str]]:
            params = finish_params(outcomes, self.connections.way.codec)
            accepted = {row[0] for row in (yield self._send("finish", params))}
            if again and len(accepted) < len(outcomes):
                accepted |= {row[0] for row in (yield self._send("accepted", params))}
            return accepted

        return self._request(call, connection=connection, unsure=_LOOK, pinned=True)

    def retry(self, job_id: str, delay: float) -> PostgresRequest[bool]:
        """See `BaseStorage.retry`."""
        ended: int | None = None

        def call(again: bool) -> Call[bool]:
            nonlocal ended
            known = known_form(job_id)
            for _ in range(_TRIES):
                sent = again and ended is not None
                if not sent:
                    ((exists, ended),) = yield self._send("ended", {"id": known})
                    if not exists:
                        raise JobNotFound(job_id)
                    if ended is None:
                        return False
                ((revived, *_more),) = yield self._send("retry", {"id": known, "delay": delay, "ended": ended})
                if revived or sent:  # if not by this statement, then by an earlier one whose answer was lost
                    return True
            raise StorageUnavailable(f"job {job_id} moves too fast to be retried; try again")

        return self._request(call, unsure=_LOOK, pinned=True)

    def cancel(self, job_id: str) -> PostgresRequest[bool]:
        """See `BaseStorage.cancel`."""
        mark = _new_mark()

        def call(_: bool) -> Call[bool]:
            params = {"id": known_form(job_id), "mark": mark}
            for _again in range(_TRIES):
                ((cancelled, exists, ended, *_more),) = yield self._send("cancel", params)
                if not exists:
                    raise JobNotFound(job_id)
                if cancelled or ended:
                    return bool(cancelled)
            raise StorageUnavailable(f"job {job_id} moves too fast to be cancelled; try again")

        return self._request(call, unsure=_LOOK, pinned=True)

    def retry_many(self, ids: Sequence[str], delay: float) -> PostgresRequest[int]:
        """See `BaseStorage.retry_many`."""

        def call(_: bool) -> Call[int]:
            ((revived, *_more),) = yield self._send("retry_many", {"ids": list(ids), "delay": delay})
            return int(revived)

        return self._request(call, unsure=_LOOK, pinned=True)

    def cancel_many(self, ids: Sequence[str]) -> PostgresRequest[int]:
        """See `BaseStorage.cancel_many`."""
        mark = _new_mark()

        def call(_: bool) -> Call[int]:
            cancelled = 0
            for _again in range(3):  # jobs that others keep moving for longer are left
                params = {"ids": list(ids), "mark": mark}
                ((cancelled, exist, ended, *_more),) = yield self._send("cancel_many", params)
                if cancelled + ended >= exist:
                    break
            return int(cancelled)

        return self._request(call, unsure=_LOOK, pinned=True)

    # Look.

    def get_job(self, job_id: str) -> PostgresRequest[Job | None]:
        """See `BaseStorage.get_job`."""

        def call(_: bool) -> Call[Job | None]:
            rows = (
                (yield self._send("get_job", {"id": known}, as_dicts=True, binary=True))
                if (known := known_id(job_id))
                else ()
            )
            return job_from_row(rows[0]) if rows else None

        return self._request(call)

    def failures(self, job_id: str, limit: int) -> PostgresRequest[list[Failure]]:
        """See `BaseStorage.failures`."""

        def call(_: bool) -> Call[list[Failure]]:
            if (known := known_id(job_id)) is None:
                return []
            rows: list[Any] = yield self._send("failures", {"id": known, "limit": limit})
            return [Failure(attempt, at.astimezone(UTC), error) for attempt, at, error in reversed(rows)]

        return self._request(call)

    def get_progress(self, job_id: str) -> PostgresRequest[dict[str, Any] | None]:
        """See `BaseStorage.get_progress`."""

        def call(_: bool) -> Call[dict[str, Any] | None]:
            rows = (yield self._send("get_progress", {"id": known})) if (known := known_id(job_id)) else ()
            return rows[0][0] if rows else None

        return self._request(call)

    def list_jobs(self, limit: int | None, **wanted: Unpack[JobFilter]) -> PostgresRequest[list[Job]]:
        """See `BaseStorage.list_jobs`."""
        return self._request(lambda _: looks.listed(self._send, limit, wanted), atomic=True, pinned=False)

    def look(self, limit: int, bounds: Bounds, **wanted: Unpack[JobFilter]) -> PostgresRequest[Listing]:
        """See `BaseStorage.look`."""
        return self._request(lambda _: looks.looked(self._send, limit, wanted, bounds), atomic=True, pinned=False)

    def ids(self, before: str | None, **wanted: Unpack[JobFilter]) -> PostgresRequest[tuple[list[str], str | None]]:
        """See `BaseStorage.ids`."""
        return self._request(lambda _: looks.chosen(self._send, before, wanted), atomic=True, pinned=False)

    def glance(self) -> PostgresRequest[Glance]:
        """See `BaseStorage.glance`."""
        return self._request(lambda _: looks.glanced(self._send), atomic=True, pinned=False)

    def stats(self) -> PostgresRequest[dict[Status, int]]:
        """See `BaseStorage.stats`."""

        def call(_: bool) -> Call[dict[Status, int]]:
            (counts,) = yield self._send("stats", as_dicts=True)
            return dict(counts)

        return self._request(call, pinned=False)

    def queue_stats(self) -> PostgresRequest[list[QueueStats]]:
        """See `BaseStorage.queue_stats`."""

        def call(_: bool) -> Call[list[QueueStats]]:
            return [QueueStats(*row) for row in (yield self._send("queue_stats"))]

        return self._request(call, pinned=False)

    def diagnose(self, statement: str, *, pinned: bool = False) -> PostgresRequest[list[dict[str, Any]]]:
        """Describe the call for the rows of one of the doctor's statements; `pinned`: see `LOOKING_UP`."""

        def call(_: bool) -> Call[list[dict[str, Any]]]:
            if pinned:
                yield Send(LOOKING_UP, {})
            rows: list[dict[str, Any]] = yield self._send(statement, as_dicts=True)
            return rows

        return self._request(call, atomic=True, bounded=False, pinned=False)

    # Work by workers.

    def session(self, worker_id: str, queues: Sequence[str] | None, ttl: float) -> PostgresSession:
        """See `BaseStorage.session`."""
        return PostgresSession(self.connections, self.statements, worker_id, queues, ttl)

    def cut(self, connection: object) -> None:
        """See `BaseStorage.cut`."""
        lent: Any = connection
        cut(lent)

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[Any]]:
        """See `BaseStorage.transaction`: a psycopg connection from the pool."""
        with ExitStack() as stack:
            with translated(self.schema):
                connection = stack.enter_context(self.connections.connection(pinned=False))
                stack.enter_context(connection.transaction())
            yield connection  # errors that are raised here are the caller's, and not translated
            with translated(self.schema):
                stack.close()

    @asynccontextmanager
    async def atransaction(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """See `BaseStorage.atransaction`."""
        async with AsyncExitStack() as stack:
            with translated(self.schema):
                connection = await stack.enter_async_context(self.connections.aconnection(pinned=False))
                await stack.enter_async_context(connection.transaction())
            yield connection
            with translated(self.schema):
                await stack.aclose()

    def close(self) -> None:
        """See `BaseStorage.close`. A pool that was given is left open."""
        self.connections.close()

    async def aclose(self) -> None:
        """See `BaseStorage.aclose`."""
        await self.connections.aclose()


def _new_mark() -> int:
    """Return a number that marks a call's own cancellations; it is below zero, unlike the numbers of claims."""
    return -1 - secrets.randbits(62)


class _Knowing:
    """Learns the number of a queue (`Beforehand`), which is made and committed before the transaction that uses it.

    For a call in a caller's transaction it waits for no connection of the pool: the caller may hold the last one.
    """

    __slots__ = ("_queue", "_storage")

    def __init__(self, storage: PostgresStorage, queue: str) -> None:
        self._storage, self._queue = storage, queue

    def run_by(self, deadline: Deadline | None, perform: Callable[[Send], Any] | None, *, anew: bool) -> None:
        storage, queue = self._storage, self._queue
        if not anew and storage.knows_queue(queue):
            return
        if anew:
            storage.forget_queues()
        elif perform is not None and storage.know_queues(perform(storage.look_for_queue(queue)), queue):
            return
        storage.know_queue(storage.intern(queue, alone=perform is not None).run_by(deadline), queue)

    async def arun_by(
        self, deadline: Deadline | None, perform: Callable[[Send], Awaitable[Any]] | None, *, anew: bool
    ) -> None:
        storage, queue = self._storage, self._queue
        if not anew and storage.knows_queue(queue):
            return
        if anew:
            storage.forget_queues()
        elif perform is not None and storage.know_queues(await perform(storage.look_for_queue(queue)), queue):
            return
        storage.know_queue(await storage.intern(queue, alone=perform is not None).arun_by(deadline), queue)
