"""Ends the coroutines of jobs when the worker's lease is over: the poller may be waiting for a dead connection."""

from __future__ import annotations

import asyncio

from dbjobq.runtime.executor import Executor
from dbjobq.runtime.poller import Poller
from dbjobq.runtime.trust import TrustWindow
from dbjobq.service import Service

__all__ = ["Fence"]


class Fence(Service):
    """The service that ends jobs when the lease is over.

    Args:
        lease: Until when this worker may run what it holds.
        executor: Ends what runs.
        poller: Registers the worker anew.
    """

    name = "fence"

    def __init__(self, lease: TrustWindow, executor: Executor, poller: Poller) -> None:
        self._lease, self._executor, self._poller = lease, executor, poller

    async def run(self) -> None:
        """See `Service.run`."""
        while True:
            await asyncio.sleep(max(self._lease.left(), self._lease.ttl / 50))
            if not self._lease.alive() and self._executor.endings.fence():
                self._poller.lapse()
