"""NOTIFY → wake. Losing the connection costs latency, never jobs: polling goes on, and this reconnects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from dbjobq.errors import DBJobQError
from dbjobq.events.bus import emit
from dbjobq.events.names import LISTENER_DEAF, LISTENER_LOST, LISTENER_RESTORED
from dbjobq.runtime.backoff import ReconnectBackoff
from dbjobq.service import Service
from dbjobq.storage.values import Notice
from dbjobq.storage.worker_port import Session

__all__ = ["Listener"]

LISTEN_FIRST: Final = 2.0
"""Seconds to wait for the listening connection before the first claim, so that nothing is missed in between."""

DEAF: Final = (
    "LISTEN is accepted, but nothing arrives: the connection leads through a pooler such as PgBouncer, or to another "
    "database. This worker only polls. Give it a direct DSN for listening (listen_conninfo, --listen-dsn)"
)


class Listener(Service):
    """The service that listens for one worker.

    Args:
        session: Where the notices come from.
        on_work: There may be work. Called after every (re)connection, too, for what was missed.
        on_cancel: A job was cancelled while it ran; perhaps here.
        stopping: Set when the worker is told to stop: it need not wait for the connection any more.
        hears_others: Whether notices come from other processes, too.
    """

    name = "listener"

    def __init__(
        self,
        session: Session,
        *,
        on_work: Callable[[], None],
        on_cancel: Callable[[str], None],
        stopping: asyncio.Event,
        hears_others: bool,
    ) -> None:
        self._session, self._on_work, self._on_cancel = session, on_work, on_cancel
        self._first, self._stopping, self._others = asyncio.Event(), stopping, hears_others
        self.listening = False
        self._deaf = False

    @property
    def hears_others(self) -> bool:
        """Whether notices tell at this moment what other processes do. From any thread."""
        return self.listening and self._others

    async def ready(self) -> None:
        """See `Service.ready`: for a while; without notices a worker polls."""
        enough = [asyncio.ensure_future(event.wait()) for event in (self._first, self._stopping)]
        try:
            await asyncio.wait(enough, timeout=LISTEN_FIRST, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in enough:
                waiting.cancel()

    async def run(self) -> None:
        """Listen until cancelled."""
        backoff, troubled = ReconnectBackoff(), False
        while True:
            try:
                async for notice in self._session.notices():
                    if not self.listening and troubled:
                        emit(LISTENER_RESTORED)
                    self.listening, troubled = True, False
                    self._first.set()
                    backoff.reset()
                    self._heed(notice)
                reason = "the connection ended"
            except DBJobQError as error:
                reason = str(error)
            finally:
                self.listening = False
            if not troubled:
                emit(LISTENER_LOST, error=reason)
            troubled = True
            await asyncio.sleep(backoff.next(random.random()))  # noqa: S311 - spread, not secrecy

    def _heed(self, notice: Notice) -> None:
        match notice.kind:
            case "work":
                self._on_work()
            case "cancel":
                self._on_cancel(notice.job_id)
            case "deaf":
                if not self._deaf:  # said once
                    emit(LISTENER_DEAF, error=DEAF)
                self.listening, self._deaf = False, True
            case "echo":
                pass
