"""A worker on SQLite: its session, whose steps a thread makes for its loop, and its pulse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.base import Pulse, Session
from dbjobq.storage.sqlite_engine import Sqlite
from dbjobq.storage.sqlite_steps import Steps
from dbjobq.storage.values import Claim, Idle, Notice, Outcome, Rescued, Step

__all__ = ["SqlitePulse", "SqliteSession"]

R = TypeVar("R")


class _Hand:
    """A daemon thread that makes calls for a loop, in their order: so a release comes after the claim it is about."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="dbjobq-sqlite", daemon=True).start()

    async def make(self, call: Callable[[], R]) -> R:
        answer: Future[R] = Future()
        self._calls.put((answer, call))
        return await asyncio.wrap_future(answer)

    def stop(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            answer, call = asked
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(call())
                except BaseException as error:
                    answer.set_exception(error)
            del asked, answer, call  # an idle thread keeps nothing alive


class SqliteSession(Session):
    """See `Session`."""

    def __init__(self, sqlite: Sqlite, worker_id: str, queues: Sequence[str] | None, ttl: float) -> None:
        self.worker_id = worker_id
        self._sqlite, self._queues, self._ttl = sqlite, queues, ttl
        self._hand: _Hand | None = None
        self._worker: int | None = None

    async def _make(self, make: Callable[[Callable[[Steps], R]], R], work: Callable[[Steps, int], R]) -> R:
        hand, worker = self._hand, self._worker
        if hand is None or worker is None:
            raise StorageUnavailable("this worker's session is closed")
        return await hand.make(lambda: make(lambda steps: work(steps, worker)))

    async def open(self) -> None:
        """See `Session.open`."""
        hand = self._hand = self._hand or _Hand()
        if self._worker is None:
            self._worker = await hand.make(lambda: self._sqlite.write(lambda s: s.register(self.worker_id, self._ttl)))

    def forget(self) -> None:
        """See `Session.forget`."""
        self._worker = None

    async def close(self) -> None:
        """See `Session.close`."""
        if self._hand is not None:
            self._hand.stop()
        self._hand = None

    async def step(  # noqa: PLR0913 - what one exchange carries
        self,
        outcomes: Sequence[Outcome],
        want: int,
        *,
        beat: float | None,
        promote: bool,  # noqa: ARG002 - a job that is due needs no promotion here
        progress: Mapping[Claim, str],
        rush: bool,  # noqa: ARG002 - enqueues always notify, at no cost
    ) -> Step:
        """See `Session.step`."""

        def work(steps: Steps, worker: int) -> Step:
            late = [o for o in outcomes if not steps.finish(o)]
            steps.say(progress)
            refused = [o for o in late if o.event != "release" and not steps.written(o)]
            holder = {"worker": worker, "worker_id": self.worker_id}
            claims = steps.claim(want, self._queues, **holder) if want else []
            if claims and beat is not None:
                steps.prolong(worker, beat, revive=True)  # it held nothing
            return Step(claims, refused, None)

        step = await self._make(self._sqlite.write, work)
        if any(o.event in {"retry", "release"} for o in outcomes):
            self._sqlite.tell(Notice("work"))
        return step

    async def idle(self) -> Idle:
        """See `Session.idle`: enqueues of this process always notify, those of others are found by polling."""
        return Idle(None, await self._make(self._sqlite.read, lambda s, _: s.next_due(self._queues)))

    async def release(self, keep: Iterable[Claim] = ()) -> list[str]:
        """See `Session.release`."""
        released = await self._make(self._sqlite.write, lambda s, worker: s.release(worker, keep))
        if released:
            self._sqlite.tell(Notice("work"))
        return released

    def notices(self) -> AsyncIterator[Notice]:
        """See `Session.notices`: what happens in this process."""
        return self._sqlite.notices()

    def pulse(self) -> SqlitePulse:
        """See `Session.pulse`."""
        return SqlitePulse(self._sqlite, lambda: self._worker)

    def where(self) -> str:
        """See `Session.where`."""
        return self._sqlite.path


class SqlitePulse(Pulse):
    """See `Pulse`. `worker` tells the number under which the worker is registered at this moment."""

    def __init__(self, sqlite: Sqlite, worker: Callable[[], int | None]) -> None:
        self._sqlite, self._worker = sqlite, worker

    def beat(self, seconds: float) -> bool:
        """See `Pulse.beat`."""
        worker = self._worker()
        return worker is not None and self._sqlite.write(lambda s: s.prolong(worker, seconds))

    def lost(self, held: Sequence[Claim]) -> list[Claim]:
        """See `Pulse.lost`."""
        return self._sqlite.read(lambda s: [claim for claim in held if not s.held(claim)])

    def rescue(self) -> list[Rescued]:
        """See `Pulse.rescue`: looks first, so that a probe that finds nothing does not keep others from writing."""
        rescued = self._sqlite.write(Steps.rescue) if self._sqlite.read(Steps.any_lost) else []
        if rescued:
            self._sqlite.tell(Notice("work"))
        return rescued

    def finish(self, outcomes: Sequence[Outcome]) -> set[str]:
        """See `Pulse.finish`."""
        accepted = self._sqlite.write(lambda s: {o.claim.id for o in outcomes if s.finish(o)})
        if any(o.claim.id in accepted and o.event in {"retry", "release"} for o in outcomes):
            self._sqlite.tell(Notice("work"))
        return accepted

    def cut(self) -> None:
        """See `Pulse.cut`: a call waits for nothing but its turn to write, and not for ever."""

    def close(self) -> None:
        """See `Pulse.close`: it has no connection of its own."""
