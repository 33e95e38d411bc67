"""A bell that ends one coroutine's wait; anybody on its event loop may ring it."""

from __future__ import annotations

import asyncio

__all__ = ["Alarm"]


class Alarm:
    """An event with a timeout, cheap enough to ring after every job. A ring while nobody waits ends the next wait."""

    __slots__ = ("_loop", "_sleeper", "rung")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.rung = False
        self._loop = loop
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """End the present wait, or the next one."""
        self.rung = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        """Return when the bell rings, or after `seconds`; None waits for the bell alone."""
        if not self.rung and seconds is not None and seconds <= 0:
            await asyncio.sleep(0)  # whoever waits for nothing again and again must not block the loop
        elif not self.rung:
            self._sleeper = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._time_out, self._sleeper)
            try:
                await self._sleeper
            finally:
                self._sleeper = None
                if timer is not None:
                    timer.cancel()
        self.rung = False

    @staticmethod
    def _time_out(sleeper: asyncio.Future[None]) -> None:
        if not sleeper.done():
            sleeper.set_result(None)
