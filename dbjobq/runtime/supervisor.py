"""One worker on its event loop: its parts, and the services that it consists of, in the order in which they stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from dbjobq.maintenance.duty import Duty, DutyService
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.fence import Fence
from dbjobq.runtime.holdings import Holdings
from dbjobq.runtime.listener import Listener
from dbjobq.runtime.liveness.heartbeat import Heartbeat
from dbjobq.runtime.liveness.inbox import Inbox
from dbjobq.runtime.liveness.stand_in import StandIn
from dbjobq.runtime.liveness.states import Fate
from dbjobq.runtime.loop import LoopCalls
from dbjobq.runtime.poller import Poller
from dbjobq.runtime.registration import Registration
from dbjobq.runtime.slot_service import SlotService
from dbjobq.runtime.trust import TrustWindow
from dbjobq.service import Service, run_all
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim

__all__ = ["Supervisor"]


class Supervisor:
    """One worker on the running event loop.

    Args:
        config: Its settings.
        storage: Where the jobs are.
        worker_id: Its name.
        replace: Called when this loop is stuck: starts another in its place, and tells whether it did. From any thread.
        duties: What the worker does for all workers.
    """

    def __init__(
        self,
        config: WorkerConfig,
        storage: BaseStorage,
        worker_id: str,
        replace: Callable[[], bool],
        duties: Sequence[Duty] = (),
    ) -> None:
        self.worker_id = worker_id
        self._calls, self._stopping = LoopCalls(), asyncio.Event()
        self._lease, self._alarm = TrustWindow(config.lease), Alarm(self._calls.loop)
        session, inbox = storage.session(worker_id, config.queues, self._lease.ttl), Inbox()
        self._executor = Executor(config, storage, self._lease, self._alarm, worker_id)
        self._poller = Poller(config, session, self._executor, self._lease, self._alarm, inbox.beat_soon)
        holdings = Holdings(self._executor, self._poller)
        self._fate = fate = Fate(holdings.stop_by)
        ears = Listener(
            session,
            on_work=self._poller.wake,
            on_cancel=inbox.doubt,
            stopping=self._stopping,
            hears_others="listen" in storage.supports,
        )
        stuck = config.stuck_after
        stand_in = StandIn(
            session.pulse(), holdings, fate, self._calls, lease=config.lease, stuck_after=stuck, replace=replace
        )
        heartbeat = Heartbeat(
            session.pulse(), self._lease, inbox, holdings, ears, fate, self._calls, self._alarm, seconds=config.lease
        )
        ours = [DutyService(duty, session.pulse(), inbox.ask, lease=config.lease, over=fate.over) for duty in duties]
        self.services: Final[Sequence[Service]] = (
            self._poller,  # first: it claims no more, and its connection is free for the last results
            ears,  # wakes the poller, which is gone
            Fence(self._lease, self._executor, self._poller),  # ends what runs, which the slots now do themselves
            *ours,  # hold no jobs: what is half done is undone, and other workers do it
            SlotService(self._executor, holdings, session),  # what was started ends, and is written
            stand_in,  # until then a handler may block the loop, which has more to write
            heartbeat,  # leases are kept until the last job is out, so that none is rescued while it finishes
            Registration(session, storage, self._stopping),  # hangs up: nobody asks anything any more
            session.guard(),  # last: until it is closed, any connection may hang
        )
        """In the order in which they stop. They start in the reverse order: what stops last is there first."""

    async def run(self) -> None:
        """Work until `stop`; on return every job has ended or is handed back.

        A service that raises is a bug, or the end of the tables: it ends the worker, and what was started ends as at
        `stop` when the time is over.
        """
        await run_all(self.services)

    def running(self) -> list[Claim]:
        """Return what runs; from any thread."""
        return [claim for claim in self._executor.slots.running() if claim not in self._fate.settled]

    @property
    def over(self) -> bool:
        """Whether its event loop is blocked, and nothing is held there any more. From any thread."""
        return self._fate.over()

    def stop(self, *, hasten: bool = False) -> None:
        """Begin to stop; from any thread."""
        self._poller.stop(hasten=hasten)
        self._calls.call(self._notice_stop)

    def drain(self) -> None:
        """Claim no more, and end with the last job that runs; from any thread."""
        self._poller.drain()
        self._calls.call(self._notice_stop)

    def _notice_stop(self) -> None:
        self._stopping.set()
        self._alarm.ring()
