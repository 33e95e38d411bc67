"""A worker's connection: its opening, the worker's registration, and the settings that its transactions begin with."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.watchdog import Watchdog
from dbjobq.storage.postgres.connect.way import AsyncConnection, hang_up
from dbjobq.storage.postgres.schema_version import check_version
from dbjobq.storage.postgres.statements import PINNED, Statements, set_local, set_session
from dbjobq.storage.postgres.worker.served import ServedQueues

__all__ = ["Link", "Opener"]

_ASYNCHRONOUSLY: Final = {"synchronous_commit": "off"}
_DURABLE_LEVEL: Final = (
    b"select case when level in ('off', 'local') then 'on' else level end"
    b"  from current_setting('synchronous_commit') as level"
)
"""Reads the `synchronous_commit` of durable transactions: the default of role and database, and no less than `on`."""
HAS_TRANSACTION_TIMEOUT: Final = 170_000
"""The version of PostgreSQL that can bound a whole transaction, and so end one whose COMMIT does not come."""
AT_LEAST: Final = 10.0
"""Seconds that the server lets an exchange take, however short the lease is."""
AT_MOST: Final = 2**31 / 1000 - 1
"""The longest timeout that PostgreSQL can count, in seconds."""


class Commit(NamedTuple):
    """Statements that begin a transaction: they set how it is committed and, behind a pooler, planned and bounded."""

    asynchronously: bytes
    """For a transaction that need not survive a crash of the server, such as a claim. Empty if nothing is to be set."""
    durably: bytes
    """For results, and for everything else that a crash of the server must not take back."""


@dataclass(frozen=True, slots=True)
class _Line:
    """An open connection, with the statements for its schema."""

    connection: AsyncConnection
    statements: Statements
    commit: Commit

    async def rows(self, name: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Send a statement by its name, and return its rows."""
        cursor = await self.connection.execute(self.statements[name], params)
        return await cursor.fetchall()

    @asynccontextmanager
    async def pipeline(self, *, durable: bool) -> AsyncGenerator[None]:
        """Send the statements of the block as one transaction, without waiting for each answer."""
        async with self.connection.pipeline():
            if said := self.commit.durably if durable else self.commit.asynchronously:
                await self.connection.execute(said)
            yield

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """Make the statements of the block one durable transaction."""
        async with self.connection.transaction():
            await self.connection.execute(self.commit.durably)
            yield


@dataclass(frozen=True, slots=True)
class Link(_Line):
    """The open connection of a registered worker. A link never changes: a new connection is a new link."""

    worker: int
    """The number under which the worker is registered."""
    name: str
    """The worker's name. Statements check it with the number, since the database may have been put back."""
    codec: str | None
    """See `Way.codec`."""

    @property
    def who(self) -> dict[str, Any]:
        """The parameters by which a statement identifies the worker."""
        return {"worker": self.worker, "name": self.name}


class TimeLimit:
    """The time that the server lets an exchange take: twice as long after an exchange that may have run out of it.

    Args:
        ttl: The worker's life without a heartbeat, in seconds.
    """

    def __init__(self, ttl: float) -> None:
        self._usual = self.seconds = max(ttl, AT_LEAST)

    @contextmanager
    def kept(self) -> Generator[None]:
        """Bound an exchange while the block runs; the next one has more time if the server may have ended this one."""
        began = time.monotonic()
        try:
            yield
        except StorageUnavailable:
            if time.monotonic() - began >= self.seconds:
                self.seconds *= 2
            raise
        self.seconds = self._usual


class Opener:
    """Opens links for one worker, and registers the worker.

    Args:
        connections: Makes the connection.
        statements: The statements for the schema.
        guard: The watchdog for questions over the connection.
        name: The worker's name.
        ttl: The worker's life without a heartbeat, in seconds.
    """

    def __init__(
        self, connections: Connections, statements: Statements, guard: Watchdog, name: str, ttl: float
    ) -> None:
        self._connections, self._statements, self._guard = connections, statements, guard
        self._name, self._ttl = name, ttl
        self.limit = TimeLimit(ttl)
        """The time limit of each exchange."""

    async def open(self, queues: ServedQueues, before: int | None) -> Link:
        """Connect, check the tables' version, learn the queues, and register the worker unless it is registered.

        Args:
            queues: The queues that the worker serves.
            before: The number under which the worker was registered; None if it was not.
        """
        connection = await self._connections.connect_session()
        try:
            with self._guard.waiting(connection):
                version = await connection.execute(self._statements["version"])
                check_version(await version.fetchall(), self._connections.schema)
                line = _Line(connection, self._statements, await self._settle(connection, self.limit.seconds))
                number = await self._introduce(line, queues, before)
        except BaseException:
            await hang_up(connection)
            raise
        return Link(connection, line.statements, line.commit, number, self._name, self._connections.way.codec)

    async def _settle(self, connection: AsyncConnection, seconds: float) -> Commit:
        """Have the server end a transaction whose COMMIT does not come, since the worker is paused or cut off (0012).

        Such a transaction keeps locks on jobs that it claims or finishes, which nobody could rescue. Also find out how
        durable transactions are committed: no less durably than role and database have it.
        """
        (level,) = await (await connection.execute(_DURABLE_LEVEL)).fetchone() or ("on",)
        bound: dict[str, str] = {}
        if connection.info.server_version >= HAS_TRANSACTION_TIMEOUT:
            bound["transaction_timeout"] = f"{min(seconds, AT_MOST) * 1000:.0f}"
        if self._connections.pooled:
            return Commit(
                asynchronously=set_local(**PINNED, **bound, **_ASYNCHRONOUSLY),
                durably=set_local(**PINNED, **bound, synchronous_commit=level),
            )
        await connection.execute(set_session(**bound, **_ASYNCHRONOUSLY))
        return Commit(asynchronously=b"", durably=set_local(synchronous_commit=level))

    async def _introduce(self, line: _Line, queues: ServedQueues, before: int | None) -> int:
        """Register the queues and the worker durably: a crash must not give their numbers to others."""
        for name in queues.wanted or ():
            await line.rows("intern", {"name": name})
        async with line.transaction():
            await queues.learn(line.rows)
            known = {"worker": before, "name": self._name}
            if before is not None and (await line.rows("known", known))[0][0]:
                return before
            ((number, _durable),) = await line.rows("register", {"name": self._name, "ttl": self._ttl})
            return int(number)
