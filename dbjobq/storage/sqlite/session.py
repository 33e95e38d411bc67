"""A worker's side of SQLite: the steps are made on a thread, and events are heard in this process alone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from dbjobq.models import TRANSITIONS
from dbjobq.storage.sqlite.engine import Sqlite
from dbjobq.storage.sqlite.jobs import (
    JOBS,
    NOW,
    OVER,
    RUNNING,
    SCHEDULED,
    cancelled_of,
    claim,
    finish,
    of_claim,
    release,
    rescue,
    served_by,
    status_of,
)
from dbjobq.storage.values import Answer, Claim, Exchange, Idle, Notice, Outcome, Rescued
from dbjobq.storage.worker_port import Pulse, Session

__all__ = ["SqliteSession"]

R = TypeVar("R")


class SqliteSession(Session):
    """See `Session`. The steps are made on a thread."""

    def __init__(self, sqlite: Sqlite, worker_id: str, queues: Sequence[str] | None, ttl: float) -> None:
        self.worker_id, self.sqlite, self._queues, self._ttl = worker_id, sqlite, queues, ttl
        self._thread = ThreadPoolExecutor(1, "dbjobq-sqlite")
        self.forget()

    async def _run(self, work: Callable[[sa.Connection], R]) -> R:
        """Make a step after those that were asked for before, so that a release comes after its claim."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.sqlite.run, work)

    async def open(self) -> bool:
        """See `Session.open`: there is nothing to register."""
        await self._run(lambda _: None)
        return True

    def forget(self) -> None:
        """See `Session.forget`."""
        self.worker = secrets.token_hex(8)

    async def step(self, exchange: Exchange) -> Answer:
        """See `Session.step`. A job that is due needs no promotion here, and enqueues always notify."""
        outcomes = exchange.outcomes

        def work(db: sa.Connection) -> Answer:
            accepted = finish(db, outcomes)
            for held, said in exchange.progress.items():
                db.execute(sa.update(JOBS).where(of_claim(held), RUNNING).values(progress=said))
            late = [o for o in outcomes if o.claim.id not in accepted and o.event not in {"release", "unknown"}]
            gave_up = [o for o in outcomes if o.event == "unknown" and status_of(db, o.claim) == "failed"]
            refused = [o for o in late if status_of(db, o.claim) != TRANSITIONS["running", o.event]]
            holder = {"worker": self.worker, "worker_id": self.worker_id, "expires_at": NOW + self._ttl}
            claims = claim(db, exchange.want, self._queues, **holder) if exchange.want else []
            return Answer(claims, refused, None, cancelled_of(db, [o.claim for o in refused]), gave_up)

        return await self._run(work)

    async def idle(self) -> Idle:
        """See `Session.idle`: enqueues of this process always notify, those of others are found by polling."""
        due = sa.select(sa.func.min(JOBS.c.due_at) - NOW).where(SCHEDULED, served_by(self._queues))
        return Idle(None, await self._run(lambda db: db.scalar(due)))

    async def release(self, keep: Iterable[Claim] = ()) -> list[str]:
        """See `Session.release`."""
        return list(await self._run(lambda db: release(db, self.worker, keep)))

    async def notices(self) -> AsyncIterator[Notice]:
        """See `Session.notices`: only for events of this process."""
        woken = asyncio.Event()
        self.sqlite.sleepers[woken] = asyncio.get_running_loop()
        try:
            while True:
                yield Notice("work")
                await woken.wait()
                woken.clear()
        finally:
            del self.sqlite.sleepers[woken]

    def pulse(self) -> SqlitePulse:
        """See `Session.pulse`."""
        return SqlitePulse(self)


class SqlitePulse(Pulse):
    """See `Pulse`."""

    def __init__(self, session: SqliteSession) -> None:
        self._session, self._sqlite = session, session.sqlite

    def beat(self, seconds: float) -> bool:
        """See `Pulse.beat`: the worker lives as long as the leases that it has, or had until they were over."""
        holds = RUNNING & (JOBS.c.expires_at > NOW)
        ends = sa.case((holds, NOW + seconds), else_=JOBS.c.expires_at)
        renewed = sa.update(JOBS).where(JOBS.c.worker == self._session.worker).values(expires_at=ends)
        return self._sqlite.run(lambda db: all(db.scalars(renewed.returning(holds))))

    def lost(self, held: Sequence[Claim]) -> dict[Claim, bool]:
        """See `Pulse.lost`."""

        def work(db: sa.Connection) -> dict[Claim, bool]:
            lost = [claim for claim in held if status_of(db, claim) != "running"]
            cancelled = cancelled_of(db, lost)
            return {claim: claim.id in cancelled for claim in lost}

        return self._sqlite.run(work, writes=False)

    def abandoned(self) -> bool:
        """See `Pulse.abandoned`."""
        return self._sqlite.run(lambda db: bool(db.scalar(sa.select(sa.exists().where(OVER)))), writes=False)

    def rescue(self) -> list[Rescued]:
        """See `Pulse.rescue`."""
        return self._sqlite.run(rescue)

    def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """See `Pulse.finish`."""
        return self._sqlite.run(lambda db: finish(db, outcomes))

    def take_over(self, keep: Sequence[Claim], outcomes: Sequence[Outcome] = ()) -> tuple[set[str], list[str]]:
        """See `Pulse.take_over`."""
        return self._sqlite.run(lambda db: (finish(db, outcomes), list(release(db, self._session.worker, keep))))
