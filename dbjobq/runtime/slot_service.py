"""Runs a worker's slots; when it is stopped, what was started ends, and how it ended is written."""

from __future__ import annotations

import asyncio
from typing import Final

from dbjobq.events.bus import emit
from dbjobq.events.names import WORKER_UNRELEASED
from dbjobq.hooks import tell_ended
from dbjobq.runtime.executor import Executor
from dbjobq.runtime.holdings import Holdings
from dbjobq.service import Service
from dbjobq.storage.values import Exchange, Outcome
from dbjobq.storage.worker_port import Session

__all__ = ["SlotService"]

LAST_WRITES: Final = 2.0
"""Seconds for writing how jobs ended when the worker ends; what is not written then is left to whoever rescues it."""


class SlotService(Service):
    """The service that has jobs run.

    It is stopped after the poller: nothing is claimed any more, and the session is its own.

    Args:
        executor: Has the slots.
        holdings: What has ended, and may not be written.
        session: For writing it.
    """

    name = "slots"

    def __init__(self, executor: Executor, holdings: Holdings, session: Session) -> None:
        self._executor, self._holdings, self._session = executor, holdings, session

    async def run(self) -> None:
        """See `Service.run`. On return every job that was started has ended or is handed back, and is written so."""
        self._executor.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        unfinished = {outcome.claim: outcome for outcome in self._executor.endings.hand_back()}
        outcomes = list((unfinished | self._holdings.ended()).values())
        await self._executor.close()
        try:
            async with asyncio.timeout(LAST_WRITES):
                await self._write(outcomes)
        except Exception as error:  # whatever ended the worker may be in the way of this, too
            emit(WORKER_UNRELEASED, error=str(error) or "timed out")

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
