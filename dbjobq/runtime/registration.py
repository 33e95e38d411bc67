"""Registers a worker when it starts, and hangs up when nobody needs its connections any more."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import Final

from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import DATABASE_UNAVAILABLE
from dbjobq.runtime.backoff import ReconnectBackoff
from dbjobq.service import Service
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.worker_port import Session

__all__ = ["Registration"]

HANG_UP: Final = 1.0
"""Seconds that the connections of jobs on this event loop get to be closed."""


class Registration(Service):
    """The service that holds the session: ready when the worker is registered.

    Later losses of the connection are the poller's to mend.

    Args:
        session: What is opened and closed.
        storage: Whose connections on this event loop are closed, too.
        stopping: Set when the worker is told to stop: there is nothing to register for any more.
    """

    name = "session"

    def __init__(self, session: Session, storage: BaseStorage, stopping: asyncio.Event) -> None:
        self._session, self._storage, self._stopping = session, storage, stopping
        self._open = asyncio.Event()

    async def ready(self) -> None:
        """See `Service.ready`."""
        await self._open.wait()

    async def run(self) -> None:
        """Connect, for as long as that takes; return if told to stop before. Raises what waiting would not mend."""
        try:
            if await self._connect():
                self._open.set()
                await asyncio.Event().wait()
        finally:
            await self._session.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(HANG_UP):
                    await self._storage.aclose()

    async def _connect(self) -> bool:
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
