"""A worker's exchange with PostgreSQL: results and claims in one pipeline, sleeping and waking, listening."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import psycopg

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import PLACES_CLEARED, PLACES_TIDIED
from dbjobq.models import CODES
from dbjobq.storage.postgres.connect.connections import Connections
from dbjobq.storage.postgres.connect.deadline import cut
from dbjobq.storage.postgres.connect.errors import first_line, forget_prepared, is_passing, translated
from dbjobq.storage.postgres.connect.watchdog import Guard
from dbjobq.storage.postgres.connect.way import AsyncConnection
from dbjobq.storage.postgres.schema_version import check_version
from dbjobq.storage.postgres.statements import DURABLE, PINNED, Statements, set_local, set_session
from dbjobq.storage.postgres.worker.claim_start import Scan, Start
from dbjobq.storage.postgres.worker.pulse import PostgresPulse
from dbjobq.storage.postgres.worker.rows import (
    CLAIMED_AT,
    DATA,
    POSITION,
    PRIORITY,
    QUEUE,
    SUSPECT,
    TYPE,
    accepted_params,
    array,
    bodies_params,
    claims_of,
    clear_params,
    finish_params,
    held_params,
    with_data,
)
from dbjobq.storage.postgres.worker.set_aside import in_another_form
from dbjobq.storage.values import Answer, Claim, Exchange, Idle, Notice, Outcome
from dbjobq.storage.worker_port import Session

__all__ = ["PostgresSession"]

AsyncCursor: TypeAlias = psycopg.AsyncCursor[Any]

_LAX: Final = {"synchronous_commit": "off"}
"""For exchanges without results: claims need not be durable, losing one is a redelivery."""
_DURABLE_LEVEL: Final = (
    b"select case when level in ('off', 'local') then 'on' else level end"
    b"  from current_setting('synchronous_commit') as level"
)
"""What the exchanges with results have: what role and database have as their default, and no less than `on`."""
HAS_TRANSACTION_TIMEOUT: Final = 170_000
"""PostgreSQL's version that can bound a transaction whose end does not come."""
AT_LEAST: Final = 10.0
"""Seconds that the server lets an exchange take, however short the lease is."""
AT_MOST: Final = 2**31 / 1000 - 1
"""The longest that PostgreSQL can count."""
DUE_EVERY: Final = 0.5
"""Seconds between looks at the next scheduled job while claims go on."""
PROMOTE_WITHIN: Final = 0.25
"""Seconds in which an exchange makes ready what is due; results wait for so long. Some 25,000 jobs."""
PROMOTE_AT_MOST: Final = 5.0
"""Seconds for which claims wait, exchange after exchange, until all that is due is ready."""
BUSY_EVERY: Final = 1.0
"""Seconds between two remarks that enqueues need not notify."""
ECHO_WITHIN: Final = 1.0
"""Seconds in which a notification of one's own must come back; it takes milliseconds."""

ANY: Final = 2**31 - 1
"""The most jobs that a claim can be asked for."""
ROOM: Final = 2**24
"""Bytes of large data that a claim brings at most, beyond one job: 16 MiB."""
CLEARINGS: Final = 10
"""How often an exchange clears away a thousand places whose job is gone."""

FEW: Final = 32
"""Queues that a worker of all queues knows by heart."""
MET: Final = 100
"""Where there are more, it keeps so many in mind of those that it has met."""

SILENCE: Final = 60.0
"""Seconds after which the listening connection is asked whether it still leads anywhere."""


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """What one pipeline carries, and the cursors that take its answers."""

    connection: AsyncConnection = field(kw_only=False)
    worker: int = field(kw_only=False)
    plain: list[Outcome]
    other: list[Outcome]
    want: int
    beat: float | None
    promote: bool
    progress: Mapping[Claim, str]
    near: list[Start] | None
    since: float | None
    space: Callable[[], int]
    ask_due: bool
    say_busy: bool
    completed: AsyncCursor = field(init=False)
    finished: AsyncCursor = field(init=False)
    claimed: AsyncCursor = field(init=False)
    due: AsyncCursor = field(init=False)

    def __post_init__(self) -> None:
        self.completed = self.connection.cursor(binary=True)
        self.finished = self.connection.cursor()
        self.claimed = self.connection.cursor(binary=True)
        self.due = self.connection.cursor(binary=True)


class PostgresSession(Session):
    """See `Session`. One connection for work, opened anew after each failure; one more while `notices` is iterated."""

    def __init__(
        self,
        connections: Connections,
        statements: Statements,
        worker_id: str,
        queues: Sequence[str] | None,
        ttl: float,
    ) -> None:
        self.worker_id = worker_id
        self._connections, self._statements, self._ttl = connections, statements, ttl
        self._guard = Guard(connections, statements, ttl)
        self._queues = None if queues is None else list(queues)
        self._connection: AsyncConnection | None = None
        self._listening: AsyncConnection | None = None
        self._worker: int | None = None
        self._names: dict[int, str] = {}
        self._served: list[int] = []
        self._stale_queues = False
        self._met: dict[int, None] = {}
        self._many = False  # it serves all queues, and they are many: `_served` are those it has met of late,
        self._turn = 0  # and the one from which on it looks next
        self._scan = Scan()
        self._busy_at = self._due_at = float("-inf")
        self._behind_since = float("inf")  # when there was first more due than could be made ready at once
        self._writers: set[str] = set()
        self._most = ANY  # jobs to claim at once: fewer where their data is large
        self._uncleared = False  # whether more places without a body may be there
        self._told_of_places = False
        self._sure = False  # that `wanted` has been set since this worker looked for open writers
        self._cleared = False  # it was cleared since
        self._look_in = 0.0
        self._longest = self._usual = max(ttl, AT_LEAST)
        self._lax, self._durable = b"", DURABLE  # what precedes an exchange without results, and what must not be lost

    # Coming and going.

    async def open(self) -> bool:
        """See `Session.open`."""
        with translated(self._connections.schema):
            connection = await self._connections.connect_session()
            try:
                with self._guard.waiting(connection):
                    check_version(await self._rows(connection, "version"), self._connections.schema)
                    await self._bound(connection)
                    worker = await self._introduce(connection)
            except BaseException:
                await _hang_up(connection)
                raise
            same = self._worker in {None, worker}
            self._connection, self._worker, self._scan = connection, worker, Scan()
            self._sure = False
            return same

    async def _bound(self, connection: AsyncConnection) -> None:
        """Have the server end a transaction whose end does not come: this worker is paused, or cut off (0012).

        It has locks on what it claims and what it has finished, which nobody can rescue before. And say which
        transactions are to be durable, and how: no less than role and database have it.
        """
        (level,) = await (await connection.execute(_DURABLE_LEVEL)).fetchone() or ("on",)
        bound: dict[str, str] = {}
        if connection.info.server_version >= HAS_TRANSACTION_TIMEOUT:
            bound["transaction_timeout"] = f"{min(self._longest, AT_MOST) * 1000:.0f}"
        if self._connections.pooled:
            self._lax = set_local(**PINNED, **bound, **_LAX)
            self._durable = set_local(**PINNED, **bound, synchronous_commit=level)
        else:
            await connection.execute(set_session(**bound, **_LAX))
            self._durable = set_local(synchronous_commit=level)

    @contextmanager
    def _in_time(self) -> Generator[None]:
        """Ask for twice the time where the server may have ended an exchange for the time it took: it is made again."""
        began = time.monotonic()
        try:
            yield
        except StorageUnavailable:
            if time.monotonic() - began >= self._longest:
                self._longest *= 2
            raise
        self._longest = self._usual

    async def _introduce(self, connection: AsyncConnection) -> int:
        """Make the queues and the worker known, durably: a crash must not give their numbers to others."""
        for name in self._queues or ():
            await self._rows(connection, "intern", {"name": name})
        async with connection.transaction():
            await connection.execute(self._durable)
            await self._learn_queues(connection)
            own = {"worker": self._worker, "name": self.worker_id}
            if self._worker is not None and (await self._rows(connection, "known", own))[0][0]:
                return self._worker
            params = {"name": self.worker_id, "ttl": self._ttl}
            number: int = (await self._rows(connection, "register", params))[0][0]
            return number

    def forget(self) -> None:
        """See `Session.forget`."""
        self._worker = None

    async def close(self) -> None:
        """See `Session.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _hang_up(connection)

    @contextmanager
    def _asking(self, connection: AsyncConnection) -> Generator[None]:
        with translated(self._connections.schema, workers=True), self._guard.waiting(connection):
            yield

    async def _rows(
        self, connection: AsyncConnection, name: str, params: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(self._statements[name], params)
        return await cursor.fetchall()

    def _opened(self) -> tuple[AsyncConnection, int]:
        if self._connection is None or self._worker is None or self._connection.closed:
            raise StorageUnavailable("this worker's connection is closed")
        return self._connection, self._worker

    async def _learn_queues(self, connection: AsyncConnection) -> bool:
        """Read the queues to serve; return whether there are new ones.

        Where it is all, and they are many, none is learned before a job of it is met.
        """
        if self._queues is None:
            rows = await self._rows(connection, "queues", {"limit": FEW + 1})
        else:
            rows = await self._rows(connection, "queues_named", {"names": self._queues})
        self._stale_queues = False
        if self._queues is None and len(rows) > FEW:
            new, self._many = not self._many, True
            return new
        self._names, before = dict(rows), set(self._served)
        if self._queues is None:
            self._served = [n for n in self._served if n in self._names]
            self._served += [n for n in self._names if n not in before]
        else:
            numbers = {name: number for number, name in self._names.items()}
            self._served = [numbers[name] for name in self._queues]
        if set(self._served) == before:
            return False
        self._scan = Scan()  # which knows nothing of the new ones
        return True

    async def _meet(self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]], *, full: bool) -> None:
        """Learn the names of queues that jobs came from, and let the next ones have their turn after a full claim."""
        numbers = dict.fromkeys(row[QUEUE] for row in rows)
        if full:
            self._turn = next(iter(numbers)) + 1
        unknown = [number for number in numbers if number not in self._names]
        if unknown:
            found = await self._rows(connection, "queues_numbered", {"numbers": array(map(str, unknown))})
            self._names |= {number: f"(no queue {number})" for number in unknown} | dict(found)
        self._keep_in_mind(numbers)

    def _keep_in_mind(self, numbers: Iterable[int]) -> None:
        """Keep those that were met last, in the order of their turns; forget the others."""
        for number in numbers:
            self._met.pop(number, None)
            self._met[number] = None
        while len(self._met) > MET:
            del self._met[next(iter(self._met))]
        self._served = sorted(self._met, key=lambda number: (number < self._turn, number))

    # Work.

    async def step(self, exchange: Exchange) -> Answer:
        """See `Session.step`: one pipeline, so one transaction, one flush to disk and one wait for an answer."""
        connection, worker = self._opened()
        now, outcomes, promote = time.monotonic(), exchange.outcomes, exchange.promote
        want = min(exchange.want, self._most)
        plain = [outcome for outcome in outcomes if outcome.plain]
        other = [o for o in outcomes if not o.plain] if len(plain) < len(outcomes) else []
        if any(outcome.event == "release" for outcome in other):
            self._scan.came_back()
        near = self._scan.near(now, self._served, promoting=promote)
        measure = near is None and self._scan.wants_measure()
        it = _Exchange(
            connection,
            worker,
            plain=plain,
            other=other,
            want=want,
            beat=exchange.beat,
            promote=promote,
            progress=exchange.progress,
            near=near,
            since=self._scan.since(now),
            space=exchange.space or (lambda: ROOM),
            ask_due=want > 0 and (promote or measure or now - self._due_at > DUE_EVERY),
            say_busy=want > 0 and exchange.rush and now - self._busy_at > BUSY_EVERY,
        )
        with self._in_time(), self._asking(connection):
            if self._stale_queues:
                await self._learn_queues(connection)
            if self._many and len(self._names) > 10 * MET:
                self._names.clear()
            if promote and want and not await self._promote(it, now):
                it.want, it.ask_due, it.say_busy = 0, False, False
            try:
                await self._send(it)
            except psycopg.errors.UniqueViolation as error:
                await forget_prepared(connection)
                await self._tidy(connection, error)
            except psycopg.Error as error:
                if is_passing(error) or not outcomes:
                    raise
                await forget_prepared(connection)
            else:
                return await self._read(it, now)
            refused = [o for o in outcomes if not await self._finish_alone(connection, o)]
            return Answer([], refused, None)

    async def _tidy(self, connection: AsyncConnection, error: psycopg.Error) -> None:
        """Leave jobs that somebody has put into several places in one of them."""
        ((removed,),) = await self._rows(connection, "tidy")
        if not removed:  # by now others have done it, or there is something else in the way
            raise StorageUnavailable(f"a job stands in two places: {first_line(error)}") from error
        emit(PLACES_TIDIED, rows=removed)

    async def _promote(self, it: _Exchange, now: float) -> bool:
        """Make ready what is due; return whether to claim now, or first to go on with that in the next exchange.

        Claims wait until all that is due can be compared, but not for ever: jobs may fall due as fast as they move.
        """
        more = True
        while more and time.monotonic() - now < PROMOTE_WITHIN:
            async with it.connection.pipeline():
                if self._lax:
                    await it.connection.execute(self._lax)
                promoted = await it.connection.execute(self._statements["promote"], {"since": it.since})
            ((more, _),) = await promoted.fetchall()
        self._behind_since = min(self._behind_since, now) if more else float("inf")
        return now - self._behind_since > PROMOTE_AT_MOST or not more

    async def _send(self, it: _Exchange) -> None:
        sql, results = self._statements, it.plain or it.other
        async with it.connection.pipeline():
            if settings := self._durable if results else self._lax:
                await it.connection.execute(settings)
            if it.plain:
                await it.completed.execute(sql["finish_completed"], held_params(o.claim for o in it.plain))
            if it.other:
                await it.finished.execute(sql["finish"], finish_params(it.other, self._connections.way.codec))
            if it.progress:
                said = {**held_params(it.progress), "progress": list(it.progress.values())}
                await it.connection.execute(sql["progress"], said)
            if it.want:
                await self._claim(it, it.want, it.near)
            if it.say_busy:
                await it.connection.execute(sql["busy"], {"queues": array(map(str, self._served))})
            if it.ask_due:
                await it.due.execute(sql["next_due"], {"since": it.since})

    async def _read(self, it: _Exchange, now: float) -> Answer:
        refused: list[Outcome] = []
        if it.plain and it.completed.rowcount != len(it.plain):
            refused += await self._refused(it.connection, it.plain, set())
        unknown = [outcome for outcome in it.other if outcome.event == "unknown"]
        gave_up: list[Outcome] = []
        if it.other and (unknown or it.finished.rowcount != len(it.other)):
            came_of = {row[0]: row[1] for row in await it.finished.fetchall()}
            gave_up = [outcome for outcome in unknown if came_of.get(outcome.claim.id) == CODES["fail"]]
            refused += await self._refused(it.connection, it.other, set(came_of))
        whole = it.near is None
        rows = await self._read_claim(it, now) if it.want else []
        if it.say_busy:
            self._busy_at, self._cleared = now, True
        if not it.ask_due:
            return Answer(claims_of(rows, self._names), refused, 0.0 if it.promote and not it.want else None, gave_up)
        self._due_at = now
        ((next_due, clock, seconds),) = await it.due.fetchall()
        self._scan.scheduled(clock, next_due)
        if whole:
            self._scan.measured(time.monotonic(), seconds, len(rows) + len(it.plain) + len(it.other))
        return Answer(claims_of(rows, self._names), refused, next_due, gave_up)

    async def _read_claim(self, it: _Exchange, now: float) -> list[tuple[Any, ...]]:
        rows = await it.claimed.fetchall()
        if self._looked(rows, it, now):  # there is too little: look from the front
            it.near = None
            await self._claim(it, it.want - len(rows), None)
            rows += await it.claimed.fetchall()
            self._looked(rows, it, now)
        full = len(rows) == it.want
        if rows and self._many:
            await self._meet(it.connection, rows, full=full)
        if any(row[DATA] is None for row in rows):
            rows = await self._clear(it, rows)
            rows = await self._fetch(it, rows)
        elif len(rows) >= self._most:
            self._most = min(self._most * 2, ANY)
        self._due_at = min(self._due_at, now)
        if not self._many and len(rows) == it.want and self._queues is None and len(self._served) > 1:
            self._served = [*self._served[1:], self._served[0]]  # all queues: each in its turn
        return rows

    async def _clear(self, it: _Exchange, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the rows that have a body; clear away places that have none, and claim others in their stead."""
        for left in reversed(range(CLEARINGS)):
            empty = [row for row in rows if row[TYPE] is None]
            if not empty:
                break
            rows = [row for row in rows if row[TYPE] is not None]
            queues = dict.fromkeys(row[QUEUE] for row in empty)
            ((more,),) = await self._rows(it.connection, "clear", clear_params(queues, empty))
            emit(PLACES_CLEARED, quietly=self._told_of_places, rows=len(empty) + more)
            self._told_of_places = True
            self._uncleared = not left
            if left:
                await self._claim(it, it.want - len(rows), None)
                more_rows = await it.claimed.fetchall()
                if more_rows and self._many:
                    await self._meet(it.connection, more_rows, full=False)
                rows += more_rows
        return rows

    async def _fetch(self, it: _Exchange, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the rows with their data, as far as there is room; the others go back before anything starts."""
        large = [row for row in rows if row[DATA] is None]
        if not large:
            return rows
        # Somebody may have died of a suspect: one at a time.
        room = 1 if any(row[SUSPECT] for row in large) else max(1, min(ROOM, it.space()))
        async with it.connection.pipeline():
            if self._lax:
                await it.connection.execute(self._lax)
            bodies = await it.connection.execute(self._statements["bodies"], bodies_params(large, room))
        rows = with_data(rows, await bodies.fetchall())
        fits = next((number for number, row in enumerate(rows) if row[DATA] is None), len(rows))
        if fits < len(rows):  # what is behind it goes back, too: the order remains
            back = [(*row[:DATA], "", *row[DATA + 1 :]) for row in rows[fits:]]
            released = [Outcome(claim, "release") for claim in claims_of(back, self._names)]
            async with it.connection.pipeline():
                if self._lax:
                    await it.connection.execute(self._lax)
                await it.connection.execute(self._statements["finish"], finish_params(released, None))
            self._scan.came_back()
            self._most = max(1, fits)
        return rows[:fits]

    def _looked(self, rows: Sequence[tuple[Any, ...]], it: _Exchange, now: float) -> bool:
        ends = {(row[QUEUE], row[PRIORITY]): row[POSITION] for row in rows}
        if rows:  # who may enqueue may write a position that is far in the future
            latest = int(rows[-1][CLAIMED_AT] * 1e6)
            ends = {group: min(end, latest) for group, end in ends.items()}
        again = self._scan.looked(now, ends, near=it.near is not None, full=len(rows) == it.want)
        if rows and not again:
            self._scan.emptied(now, rows[-1][CLAIMED_AT])
        return again

    async def _claim(self, it: _Exchange, want: int, near: list[Start] | None) -> None:
        params: dict[str, Any] = {"queues": array(map(str, self._served)), "turn": self._turn}
        params |= {"limit": want, "lease": None}
        params |= {"worker": it.worker, "name": self.worker_id, "beat": it.beat}
        if near is not None:
            columns = zip(*near, strict=True)
            params |= zip(("after", "priorities", "positions"), (array(map(str, c)) for c in columns), strict=True)
        await it.claimed.execute(
            self._statements["claim_after" if near else "claim_any" if self._many else "claim"], params
        )

    async def _refused(self, connection: AsyncConnection, sent: Sequence[Outcome], accepted: set[str]) -> list[Outcome]:
        """Tell results that came late from those that were written before, when the reply was lost."""
        if missing := [outcome for outcome in sent if outcome.claim.id not in accepted]:
            accepted |= {row[0] for row in await self._rows(connection, "accepted", accepted_params(missing))}
        return [o for o in missing if o.claim.id not in accepted and o.event not in {"release", "unknown"}]

    async def _finish_alone(self, connection: AsyncConnection, outcome: Outcome) -> bool:
        """Write one outcome of a batch in which PostgreSQL refused something; in another form, if it was this one."""
        try:
            return await self._finish_one(connection, outcome)
        except psycopg.Error as error:
            if is_passing(error) or (another := in_another_form(outcome, error)) is None:
                raise
            return await self._finish_alone(connection, another)

    async def _finish_one(self, connection: AsyncConnection, outcome: Outcome) -> bool:
        async with connection.transaction():
            await connection.execute(self._durable)
            cursor = await connection.execute(
                self._statements["finish"], finish_params([outcome], self._connections.way.codec)
            )
        return cursor.rowcount == 1 or not await self._refused(connection, [outcome], set())

    async def idle(self) -> Idle:
        """See `Session.idle`.

        An enqueue notifies if it sees `wanted`. One whose transaction was open while it was set may not have: those
        are looked for in `pg_locks`, and until they have ended this worker keeps looking (docs/decisions/0004). So does
        every worker that falls asleep, whoever of them was the one to set it.
        """
        connection, worker = self._opened()
        self._due_at = float("inf")
        sure, self._sure = self._sure, True  # unless somebody says otherwise while this is asked
        cleared, self._cleared = self._cleared, False
        every = self._queues is None
        with self._asking(connection):
            # Of many queues those that others have met are set by them, or when this worker begins.
            name = "idle" if every and not (self._many and sure) else "idle_of"
            params = {"queues": array(map(str, self._served)), "few": FEW, "since": self._scan.since(time.monotonic())}
            params |= {"worker": worker, "name": self.worker_id}
            ((changed, count, next_due, clock, registered),) = await self._rows(connection, name, params)
            now = time.monotonic()
            self._scan.emptied(now, clock)
            self._scan.scheduled(clock, next_due)
            learned = self._many or not every or count == len(self._names)
            new = not learned and await self._learn_queues(connection)
            again, self._uncleared = new or self._uncleared, False
            look_in = await self._look_for_writers(connection, anew=not sure, cleared=cleared or changed)
            looks = [0.0 if again else None, look_in, self._scan.whole_in(now)]
            look_in = min((look for look in looks if look is not None), default=None)
            return Idle(look_in, next_due, registered=registered)

    async def _look_for_writers(self, connection: AsyncConnection, *, anew: bool, cleared: bool) -> float | None:
        anew, waited = anew or cleared, bool(self._writers)
        if not (anew or waited):
            return None
        writers: set[str] = set((await self._rows(connection, "writers"))[0][0] or ())
        self._writers = writers if anew else writers & self._writers
        if not (self._writers or waited or cleared):
            return None
        # The last of them may have committed since the last look: that makes one more look.
        at_once = cleared or not self._writers
        self._look_in = 0.0 if at_once else min(max(0.02, self._look_in * 2), 0.25)
        return self._look_in

    async def release(self, keep: Iterable[Claim] = ()) -> list[str]:
        """See `Session.release`."""
        connection, worker = self._opened()
        with self._asking(connection):
            async with connection.transaction():
                await connection.execute(self._durable)
                rows = await self._rows(
                    connection, "release_worker", {"worker": worker, "name": self.worker_id, **held_params(keep)}
                )
            return [row[0] for row in rows]

    # Being told.

    async def notices(self) -> AsyncGenerator[Notice]:
        """See `Session.notices`."""
        with translated(self._connections.schema):
            connection = self._listening = await self._connections.connect_listener()
            try:
                with self._guard.waiting(connection):
                    await connection.execute(self._statements.listen.encode())
                self._sure = False  # it may have been said before
                yield Notice("work")
                async with aclosing(self._payloads(connection)) as payloads:
                    async for payload in payloads:
                        if payload is None or payload == "e":
                            yield Notice("echo" if payload else "deaf")
                        elif payload.startswith("c"):
                            yield Notice("cancel", payload[1:])
                        elif self._concerns(payload[1:]):
                            if payload.startswith("b"):
                                self._cleared = True
                                if self._many:
                                    self._keep_in_mind([int(payload[1:])])
                            yield Notice("work")
            finally:
                await _hang_up(connection)

    async def _payloads(self, connection: AsyncConnection) -> AsyncGenerator[str | None]:
        """Yield what is notified; None if within a second nothing was, though something was said to be heard here.

        It is said the way that enqueues go. On the listening connection it would prove nothing: a pooler passes on what
        a server adds to its answers.
        """
        async with await self._connections.async_connect() as other:
            with self._guard.waiting(other):
                await other.execute(self._statements["echo"])
        heard = False
        async for notify in connection.notifies(timeout=ECHO_WITHIN):
            heard = True
            yield notify.payload
        if not heard:
            yield None
        while True:
            async for notify in connection.notifies(timeout=SILENCE):
                yield notify.payload
            with self._guard.waiting(connection):
                await connection.execute(b"select 1")

    def _concerns(self, number: str) -> bool:
        queue = int(number) if number.isdecimal() else 0
        if self._queues is None:
            self._stale_queues = not self._many and (self._stale_queues or queue not in self._names)
            return True
        return queue in self._served

    def pulse(self) -> PostgresPulse:
        """See `Session.pulse`."""
        shared = (self._connections, self._statements, self._guard, self.worker_id)
        return PostgresPulse(*shared, lambda: self._worker, self._cut, self._ttl)

    def _cut(self) -> None:
        """End the connections that the event loop uses; from any thread."""
        cut(self._connection)
        cut(self._listening)

    async def guard(self) -> None:
        """See `Session.guard`."""
        await self._guard.run()


async def _hang_up(connection: AsyncConnection) -> None:
    """Close without waiting for a server that does not answer."""
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            await connection.close()
    cut(connection)
