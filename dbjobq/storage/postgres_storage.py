"""`PostgresStorage`: every step of a queue is a statement in `sql/`, described here and made by `PostgresRequest`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any, ClassVar, TypeVar, Unpack

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from dbjobq.ids import JobIds
from dbjobq.models import Job, Status
from dbjobq.storage.base import BaseStorage, Feature, JobFilter, Recipe
from dbjobq.storage.postgres import by_hand, looks
from dbjobq.storage.postgres.by_hand import LOOK_OR_REPEAT, Dequeuing
from dbjobq.storage.postgres.connect.address import named_dsn, named_schema
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import cut
from dbjobq.storage.postgres.connect.errors import translated
from dbjobq.storage.postgres.connect.prepared import PreparedEnqueue
from dbjobq.storage.postgres.connect.way import Conninfo
from dbjobq.storage.postgres.enqueue import REPEAT, EnqueueMany, enqueue_one
from dbjobq.storage.postgres.queue_numbers import QueueNumbers
from dbjobq.storage.postgres.request import How, PostgresRequest
from dbjobq.storage.postgres.schema_version import check_version
from dbjobq.storage.postgres.statements import Statements
from dbjobq.storage.postgres.steps import Call, Make, Send
from dbjobq.storage.postgres.worker.session import PostgresSession
from dbjobq.storage.values import Bounds, Claim, Failure, Glance, Listing, NewJob, Outcome, QueueStats

__all__ = ["PostgresStorage"]

R = TypeVar("R")


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
        self._prepared_enqueue = PreparedEnqueue(self.statements[self._plain])
        self.queue_numbers = QueueNumbers(self.connections, self._send)
        self._dequeuing = Dequeuing(self._send, self.dequeuer)

    def __repr__(self) -> str:
        where = conninfo_to_dict(self.connections.way.conninfo)  # empty before a function was called
        return f"PostgresStorage({where.get('host', 'local')}/{where.get('dbname', '')}, schema={self.schema!r})"

    def recipe(self) -> Recipe:
        """See `BaseStorage.recipe`. A storage that shares a user's pool has a pool of its own in the other process."""
        return Recipe.of(__name__, "PostgresStorage", {**self.connections.arguments(), "durable": self.durable})

    def _request(self, make: Make[R], *, connection: object | None = None, **how: Unpack[How]) -> PostgresRequest[R]:
        return PostgresRequest(self.connections, make, connection=connection, **how)

    def _send(
        self, name: str, params: Mapping[str, Any] | None = None, *, as_dicts: bool = False, binary: bool = False
    ) -> Send:
        return Send(self.statements[name], params or {}, as_dicts, binary)

    def _plain_enqueue(self, params: Mapping[str, Any]) -> Send:
        return Send(self.statements[self._plain], params, prepared=self._prepared_enqueue)

    # Enqueue.

    def check(self) -> PostgresRequest[None]:
        """See `BaseStorage.check`."""

        def call(_: bool) -> Call[None]:
            check_version((yield self._send("version")), self.schema)

        return self._request(call)

    def enqueue(self, job: NewJob, connection: object | None = None) -> PostgresRequest[str]:
        """See `BaseStorage.enqueue`."""
        callers = connection is not None
        make = enqueue_one(self._send, self.queue_numbers, job, plain=self._plain_enqueue, callers=callers)
        first = self.queue_numbers.before(job.queue)
        return self._request(make, connection=connection, first=first, shared=job.plain, unsure=REPEAT)

    def enqueue_many(
        self, like: NewJob, data: Iterable[str], connection: object | None = None
    ) -> PostgresRequest[JobIds]:
        """See `BaseStorage.enqueue_many`."""
        callers = connection is not None
        make = EnqueueMany(self.statements, self._send, self.queue_numbers, like, data, callers=callers)
        first, repeat = self.queue_numbers.before(like.queue), make.may_repeat
        return self._request(make, connection=connection, first=first, atomic=True, repeat=repeat, unsure=REPEAT)

    # Work by hand.

    def dequeue(self, queue: str, lease: float) -> PostgresRequest[Claim | None]:
        """See `BaseStorage.dequeue`."""
        unsure = "A job that it has claimed comes back after its lease"
        return self._request(self._dequeuing.dequeue(queue, lease), unsure=unsure, pinned=True)

    def finish(self, outcomes: Sequence[Outcome], connection: object | None = None) -> PostgresRequest[set[str]]:
        """See `BaseStorage.finish`."""
        make = by_hand.finish(self._send, outcomes, self.connections.way)
        return self._request(make, connection=connection, unsure=LOOK_OR_REPEAT, pinned=True)

    def retry(self, job_id: str, delay: float) -> PostgresRequest[bool]:
        """See `BaseStorage.retry`."""
        return self._request(by_hand.retry(self._send, job_id, delay), unsure=LOOK_OR_REPEAT, pinned=True)

    def cancel(self, job_id: str) -> PostgresRequest[bool]:
        """See `BaseStorage.cancel`."""
        return self._request(by_hand.cancel(self._send, job_id), unsure=LOOK_OR_REPEAT, pinned=True)

    def retry_many(self, ids: Sequence[str], delay: float) -> PostgresRequest[int]:
        """See `BaseStorage.retry_many`."""
        return self._request(by_hand.retry_many(self._send, ids, delay), unsure=LOOK_OR_REPEAT, pinned=True)

    def cancel_many(self, ids: Sequence[str]) -> PostgresRequest[int]:
        """See `BaseStorage.cancel_many`."""
        return self._request(by_hand.cancel_many(self._send, ids), unsure=LOOK_OR_REPEAT, pinned=True)

    # Look.

    def get_job(self, job_id: str) -> PostgresRequest[Job | None]:
        """See `BaseStorage.get_job`."""
        return self._request(lambda _: looks.found(self._send, job_id))

    def failures(self, job_id: str, limit: int) -> PostgresRequest[list[Failure]]:
        """See `BaseStorage.failures`."""
        return self._request(lambda _: looks.failures(self._send, job_id, limit))

    def get_progress(self, job_id: str) -> PostgresRequest[dict[str, Any] | None]:
        """See `BaseStorage.get_progress`."""
        return self._request(lambda _: looks.progress(self._send, job_id))

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
        return self._request(lambda _: looks.counted(self._send), pinned=False)

    def queue_stats(self) -> PostgresRequest[list[QueueStats]]:
        """See `BaseStorage.queue_stats`."""
        return self._request(lambda _: looks.queue_stats(self._send), pinned=False)

    def diagnose(self, statement: str, *, pinned: bool = False) -> PostgresRequest[list[dict[str, Any]]]:
        """Describe the call for the rows of one of the doctor's statements; `pinned`: see `LOOKING_UP`."""
        make: Make[list[dict[str, Any]]] = lambda _: looks.diagnosed(self._send, statement, pinned=pinned)  # noqa: E731
        return self._request(make, atomic=True, bounded=False, pinned=False)

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
