"""Starts a worker's services, and stops them in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import DATABASE_UNAVAILABLE, WORKER_UNRELEASED
from dbjobq.hooks import tell_ended
from dbjobq.runtime.backoff import ReconnectBackoff
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.listener import Listener
from dbjobq.runtime.liveness.heartbeat import Heartbeat
from dbjobq.runtime.liveness.loop_watch import Watch
from dbjobq.runtime.liveness.rescuer import Rescuer
from dbjobq.runtime.liveness.stand_in import StandIn
from dbjobq.runtime.poller import Poller
from dbjobq.runtime.trust import Lease
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Exchange, Outcome

__all__ = ["Supervisor"]

LAST_WRITES: Final = 2.0
"""Seconds for writing how jobs ended when the worker ends; what is not written then is left to whoever rescues it."""
LISTEN_FIRST: Final = 2.0
"""Seconds to wait for the listening connection before the first claim, so that nothing is missed in between."""


class Supervisor:
    """One worker on the running event loop.

    Args:
        config: Its settings.
        storage: Where the jobs are.
        worker_id: Its name.
        replace: Lets another take its place, whose event loop is not blocked; tells whether one does. From any thread.
    """

    def __init__(self, config: WorkerConfig, storage: BaseStorage, worker_id: str, replace: Callable[[], bool]) -> None:
        self._config, self._storage, self.worker_id, self._replace = config, storage, worker_id, replace
        self._loop = asyncio.get_running_loop()
        self._lease = Lease(config.lease)
        self._alarm = Alarm(self._loop)
        self._session = storage.session(worker_id, config.queues, self._lease.ttl)
        self._executor = Executor(config, storage, self._lease, self._alarm, worker_id)
        self._poller = Poller(config, self._session, self._executor, self._lease, self._alarm, self._beat_soon)
        self._listener = Listener(self._session, on_work=self._poller.wake, on_cancel=self._doubt)
        self._heartbeat: Heartbeat | None = None
        self._watch: Watch | None = None
        self._stand_in: StandIn | None = None
        self._stopping = asyncio.Event()

    def running(self) -> list[Claim]:
        """Return what runs; from any thread."""
        settled = set[Claim]() if self._watch is None else self._watch.settled
        return [claim for claim in self._executor.running() if claim not in settled]

    @property
    def over(self) -> bool:
        """Whether its event loop is blocked, and nothing is held there any more. From any thread."""
        return self._watch is not None and self._watch.over

    def stop(self, *, hasten: bool = False) -> None:
        """Begin to stop; from any thread."""
        self._poller.stop(hasten=hasten)
        self._from_thread(self._notice_stop)

    def drain(self) -> None:
        """Claim no more, and end with the last job that runs; from any thread."""
        self._poller.drain()
        self._from_thread(self._notice_stop)

    def _notice_stop(self) -> None:
        self._stopping.set()
        self._alarm.ring()

    async def run(self) -> None:
        """Work until `stop`; on return every job has ended or is handed back.

        Order matters: claiming ends first, and leases are kept until the last job is out, so that none is rescued while
        it finishes. A service that raises is a bug, or the end of the tables: it ends the worker, and what was started
        ends as at `stop` when the time is over.
        """
        guard = self._loop.create_task(self._session.guard(), name="dbjobq-guard")
        try:
            if not await self._open():
                return
            await self._serve(guard)
        finally:
            guard.cancel()

    async def _serve(self, guard: asyncio.Task[None]) -> None:
        watch = self._watch = Watch(
            self._executor,
            stop_by=lambda: self._poller.stop_by,
            unsent=self._poller.unsent,
            stuck_after=self._config.stuck_after,
            replace=self._replace,
        )
        heartbeat = self._heartbeat = Heartbeat(
            self._session.pulse(),
            self._lease,
            Rescuer(self._session.pulse),
            seconds=self._config.lease,
            held=lambda: (self._executor.running(), self._executor.holding or bool(self._poller.unsent())),
            listening=lambda: self._listener.listening and "listen" in self._storage.supports,
            on_lapsed=lambda: self._from_thread(self._alarm.ring),
            on_lost=lambda claims: self._from_thread(lambda: self._executor.lost(claims)),
            watch=watch,
        )
        stand_in = self._stand_in = StandIn(self._session.pulse(), watch, self._config.lease)
        heartbeat.start()
        stand_in.start()
        services = [guard]
        try:
            services.append(listener := self._loop.create_task(self._listener.run(), name="dbjobq-listener"))
            await self._first_notice(listener)
            self._executor.start()
            services.append(self._loop.create_task(self._fence(), name="dbjobq-fence"))
            services.append(self._loop.create_task(self._poller.run(), name="dbjobq-poller"))
            await asyncio.wait(services, return_when=asyncio.FIRST_COMPLETED)
            for service in services:
                if service.done():
                    service.result()  # raises what ended it
        finally:
            try:
                await self._close(services)
            finally:
                heartbeat.stop()  # whatever happened: it would keep the jobs from others for ever
                stand_in.stop()

    async def _open(self) -> bool:
        """Connect, for as long as it takes; False if told to stop before. Raises what waiting would not mend."""
        backoff, troubled = ReconnectBackoff(), False
        while not self._stopping.is_set():
            try:
                await self._session.open()
            except StorageUnavailable as error:
                if not troubled:
                    emit(DATABASE_UNAVAILABLE, error=str(error))
                troubled = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next(random.random())):  # noqa: S311 - spread, not secrecy
                        await self._stopping.wait()
            else:
                return True
        return False

    def _doubt(self, job_id: str) -> None:
        """A notice says that a job was cancelled. Anybody can send one, also late: the table has the last word."""
        if self._heartbeat is not None and self._executor.runs(job_id):
            self._heartbeat.doubt(job_id)

    def _beat_soon(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.beat_soon()

    async def _fence(self) -> None:
        """End the coroutines of jobs when the lease is over, though the poller may be waiting for a dead connection."""
        while True:
            await asyncio.sleep(max(self._lease.left(), self._lease.ttl / 50))
            for thread in (self._heartbeat, self._stand_in):
                if thread is not None and self._poller.stop_by is None and not thread.alive():
                    raise RuntimeError(f"the {thread.name}'s thread has ended")
            if not self._lease.alive() and self._executor.fence():
                self._poller.lapse()

    async def _first_notice(self, listener: asyncio.Task[None]) -> None:
        by = self._loop.time() + LISTEN_FIRST
        while not (self._listener.listening or listener.done() or self._stopping.is_set() or self._loop.time() > by):
            await self._alarm.wait(by - self._loop.time())

    async def _close(self, services: list[asyncio.Task[None]]) -> None:
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
        outcomes = self._last()
        await self._executor.close()
        try:
            async with asyncio.timeout(LAST_WRITES):
                await self._write(outcomes)
        except Exception as error:  # whatever ended the worker may be in the way of this, too
            emit(WORKER_UNRELEASED, error=str(error) or "timed out")
        await self._session.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._storage.aclose()

    def _last(self) -> list[Outcome]:
        """Return how all ends that was started and is not written: as it ended, or as what runs when time is over."""
        unfinished = {outcome.claim: outcome for outcome in self._executor.hand_back()}
        ended = {outcome.claim: outcome for outcome in [*self._poller.unsent(), *self._executor.unwritten()]}
        return list((unfinished | ended).values())

    async def _write(self, outcomes: list[Outcome]) -> None:
        """Write how jobs ended, and give back the rest; over another connection, if this one is at fault.

        What cannot be written stays this worker's until it is rescued: a started job does not go back for that.
        """
        results = [outcome for outcome in outcomes if outcome.event != "release"]
        for again in (False, True):
            try:
                if again:
                    await self._session.close()
                    await self._session.open()
                await self._session.release(outcome.claim for outcome in results)
                if results:
                    answer = await self._session.step(Exchange(results))
                    tell_ended(results, answer.refused, answer.gave_up)
            except Exception:
                if again:
                    raise
            else:
                return

    def _from_thread(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call)
