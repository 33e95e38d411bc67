"""The event loop of a worker: it lives as long as the worker, and not as long as what jobs leave on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVarTuple, Unpack

from dbjobq.events.bus import emit
from dbjobq.events.names import TASK_ABANDONED, TASK_EXITED

__all__ = ["LoopCalls", "event_loop", "run_to_the_end"]

Ts = TypeVarTuple("Ts")

LEFT: Final = 1.0
"""Seconds that tasks, and then generators, which jobs have left behind get to end."""


class LoopCalls:
    """Has the event loop on which this was made call functions, from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def call(self, function: Callable[[Unpack[Ts]], object], *args: *Ts) -> bool:
        """Have the loop call a function as soon as it comes round; tell whether it will: the loop may have ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *args)
            return True
        return False


class _Threads(ThreadPoolExecutor):
    """For `asyncio.to_thread`. A thread that does not come back, of a job that has been given up, is left to itself."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - its
        super().shutdown(wait=False, cancel_futures=True)


@contextmanager
def event_loop() -> Generator[asyncio.AbstractEventLoop]:
    """Lend a new event loop; uvloop's, where it is installed (`pip install 'dbjobq[fast]'`)."""
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
    try:
        yield loop
    finally:
        try:
            _end(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left, and wait for it a moment: some of it may not mind."""
    if left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        _, pending = loop.run_until_complete(asyncio.wait(left, timeout=LEFT))
        if pending:
            emit(TASK_ABANDONED, tasks=len(pending))
    with suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), LEFT))
    loop.run_until_complete(loop.shutdown_default_executor())


def run_to_the_end(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Run the worker, also past a SystemExit in some task that a handler started: asyncio ends its loop for that."""
    task = loop.create_task(main, name="dbjobq-worker")
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            emit(TASK_EXITED, error=repr(error))
    task.result()
