"""Services: the parts of a worker that run for as long as the worker does, all of one form.

A service has a name and a coroutine `run()`, which works until it is cancelled. A service that returns ends its worker;
one that raises is a bug, or the end of the tables, and ends its worker with that error. `run_all` starts a list of
services in one order and stops them in the reverse, so the list says in which order a worker stops, and why.

A service that must go on while the event loop is blocked works in a thread of its own (`ThreadService`). Its `run()` is
the adapter: the coroutine starts the thread, waits for it, and ends the thread when it is cancelled itself.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, Protocol

from dbjobq.errors import DBJobQError
from dbjobq.events.bus import emit
from dbjobq.events.names import SERVICE_BROKEN, SERVICE_FAILING

__all__ = ["Line", "NothingToDo", "Service", "ThreadService", "run_all"]

JOINED: Final = 0.5
"""Seconds that a service's thread has to end by itself, and again after its connection was cut."""


class Service(ABC):
    """A part of a worker that is started once, and stopped by cancelling it."""

    name: str
    """The service's name: in log lines, and of its task or thread (`dbjobq-…`)."""

    @abstractmethod
    async def run(self) -> None:
        """Work until cancelled."""

    async def ready(self) -> None:  # noqa: B027 - most are at once
        """Wait until the services that are started after this one may rely on it. Usually they may at once."""


class NothingToDo(Service):
    """A service that has nothing to do, where another storage would need one.

    Args:
        name: The service's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self) -> None:
        """See `Service.run`."""
        await asyncio.Event().wait()


async def run_all(services: Sequence[Service]) -> None:
    """Run services until one of them ends; then stop them all.

    The first one in the list is stopped first, and started last. Each is ready before the next is started, and has
    ended before the next is stopped, whatever the others raise meanwhile.

    Raises:
        BaseException: What ended the service that was the first to end, unless it just returned.
    """
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as started:
        for service in reversed(services):
            tasks.append(task := asyncio.create_task(service.run(), name=f"dbjobq-{service.name}"))
            started.push_async_callback(_stop, task)
            if not await _is_ready(service, tasks):
                break
        else:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()


async def _is_ready(service: Service, tasks: list[asyncio.Task[None]]) -> bool:
    """Wait until a service is ready; False if one of those that were started has ended before."""
    ready = asyncio.ensure_future(service.ready())
    try:
        ended, _ = await asyncio.wait([ready, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
    return ended == {ready}


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a service and wait for its end. An error on the way out says nothing new: the worker is ending anyhow."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


class Line(Protocol):
    """A connection that one thread uses."""

    def cut(self) -> None:
        """End a call that is stuck; from another thread."""

    def close(self) -> None:
        """Disconnect. The next call connects again."""


class ThreadService(Service):
    """A service in a thread of its own, which an event loop that is blocked does not stop.

    The thread pauses, works, pauses. What goes wrong in one piece of work is logged, and the next comes all the same.

    Args:
        name: The service's name.
        line: The thread's connection, which nobody else uses.
        over: Tells whether there is nothing left to live for. Then the thread ends, though the service goes on: the
            loop is blocked, and would not hear of it.
        bell: What ends a pause; one of its own if not given.
    """

    def __init__(self, name: str, line: Line, over: Callable[[], bool], bell: threading.Event | None = None) -> None:
        self.name, self._line, self._over = name, line, over
        self._bell = threading.Event() if bell is None else bell
        self._stopping = self._troubled = False

    async def run(self) -> None:
        """See `Service.run`. Stopping the thread takes a second at most, even if its connection is stuck.

        Raises:
            RuntimeError: The thread has ended by itself.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def work() -> None:
            error = self._work_on()
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(ended.set_result, error)

        thread = threading.Thread(target=work, name=f"dbjobq-{self.name}", daemon=True)
        thread.start()
        try:
            await asyncio.wait([ended])
            if not self._over():
                raise RuntimeError(f"the {self.name}'s thread has ended") from ended.result()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._stop()
            if not ended.done() and not (await asyncio.wait([ended], timeout=JOINED))[0]:
                self._line.cut()
                await asyncio.wait([ended], timeout=JOINED)
            if ended.done():
                thread.join(JOINED)
            raise
        finally:
            self._stop()  # whatever happened: a heartbeat would keep the jobs from others for ever

    def ring(self) -> None:
        """End the thread's pause. From any thread."""
        self._bell.set()

    def _stop(self) -> None:
        self._stopping = True
        self._bell.set()

    @abstractmethod
    def _pause(self) -> float:
        """Return the seconds until the next piece of work, unless the bell rings."""

    @abstractmethod
    def _work(self) -> None:
        """Do what is to be done now."""

    def _work_on(self) -> BaseException | None:
        """Work until told to stop; return what ended the thread otherwise."""
        try:
            while not (self._stopping or self._over()):
                try:
                    self._bell.wait(self._pause())
                    self._bell.clear()
                    if not self._over():
                        self._work()  # also once more when it is told to stop
                    self._troubled = False
                except DBJobQError as error:
                    if not (self._troubled or self._stopping):
                        emit(SERVICE_FAILING, service=self.name, error=str(error))
                    self._troubled = True
                except Exception as error:
                    emit(SERVICE_BROKEN, exception=error, service=self.name)
            self._line.close()
        except BaseException as error:
            with suppress(Exception):
                self._line.close()
            return error
        return None
