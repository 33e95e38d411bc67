"""A thread beside a worker's event loop that looks, and looks again, until it is told to stop."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from dbjobq.errors import DBJobQError
from dbjobq.events.bus import emit
from dbjobq.events.names import SERVICE_BROKEN, SERVICE_FAILING
from dbjobq.runtime.trust import now
from dbjobq.storage.worker_port import Pulse

__all__ = ["Beside"]

JOINED: Final = 0.5
"""Seconds that the thread has to end by itself, and again after its connection was cut."""


class Beside(ABC):
    """The thread. What goes wrong in one look is logged, and the next one comes all the same.

    Args:
        name: What it is called, as a service in log lines; the thread is `dbjobq-…`.
        pulse: Its connection, which nobody else uses.
        over: Tells that there is nothing left to live for.
    """

    def __init__(self, name: str, pulse: Pulse, over: Callable[[], bool]) -> None:
        self.name, self._pulse, self._over = name, pulse, over
        self._bell, self._stopping, self._troubled = threading.Event(), False, False
        self._thread = threading.Thread(target=self._run, name=f"dbjobq-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within a second even if its connection is stuck."""
        self._stopping = True
        self._bell.set()
        self._thread.join(JOINED)
        if self._thread.is_alive():
            self._pulse.cut()
            self._thread.join(JOINED)

    def alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    @abstractmethod
    def _pause(self) -> float:
        """Return the seconds until the next look, unless the bell rings."""

    @abstractmethod
    def _work(self, late: float) -> None:
        """Look, and do what is to be done; `late` is by how many seconds the look comes too late."""

    def _run(self) -> None:
        try:
            while not (self._stopping or self._over()):
                try:
                    late = self._sleep()
                    if not self._over():
                        self._work(late)
                    self._troubled = False
                except DBJobQError as error:
                    if not self._troubled:
                        emit(SERVICE_FAILING, service=self.name, error=str(error))
                    self._troubled = True
                except Exception as error:
                    emit(SERVICE_BROKEN, exception=error, service=self.name)
        finally:
            self._pulse.close()

    def _sleep(self) -> float:
        pause = self._pause()
        until = now() + pause
        self._bell.wait(pause)
        self._bell.clear()
        return now() - until
