"""The process of jobs with `executor="process"`: takes one job after the other from its worker, and runs it.

Functions run in its main thread, as in a program of their own; a thread hears what the worker says meanwhile. It shares
nothing with the worker but a socket, and must not outlive it: a job whose worker is gone is started elsewhere.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from dbjobq.attempt.call import Caller
from dbjobq.attempt.outcome import unknown
from dbjobq.attempt.run import run
from dbjobq.attempt.settled import awaited
from dbjobq.errors import UnknownJobType
from dbjobq.events.loggers import name_job, running_here
from dbjobq.imports import import_modules, import_script
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.middleware import Middleware
from dbjobq.jobs.registry import JobType, defined_in, registered
from dbjobq.runtime.contexts import contexts_of
from dbjobq.runtime.processes.channel import CUT, Channel, Setup
from dbjobq.signals import STOP_SIGNALS, on_stop_signals
from dbjobq.storage.base import BaseStorage, Recipe
from dbjobq.storage.values import Claim, Outcome

__all__ = ["main"]

WORKER_CHECK_EVERY: Final = 1.0
"""Seconds between checks that the worker is still there, where nothing reports its end."""
PAUSE: Final = 0.05
"""Seconds between two words about a job's progress."""
_PLAIN: Final = (str, int, float, bool, type(None))


def main() -> None:
    """Work until the worker hangs up. Started as `python -c … CHANNEL LIFELINE WORKER`: two descriptors and a pid."""
    theirs, lifeline, worker = map(int, sys.argv[1:])
    _die_with(lifeline, worker)
    on_stop_signals(lambda: None)  # they are the worker's; not SIG_IGN: what a job starts would inherit that
    channel = Channel(socket.socket(fileno=theirs))
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS),  # a fork must not miss one
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS),
        after_in_child=lambda: _be_nobody(channel),
    )
    _Child(channel).work()


def _die_with(lifeline: int, worker: int) -> None:
    """End this process, and what its jobs have started in its group, when the worker's process is gone.

    The kernel sends SIGIO, which ends a process, when the last one who holds the lifeline's other end has died: also
    while a job holds the GIL. The thread is for systems without that, and for when a fork of the worker holds that end.
    """
    os.set_inheritable(lifeline, False)
    with suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)

    def watch() -> None:
        while os.getppid() == worker and not select.select([lifeline], [], [], WORKER_CHECK_EVERY)[0]:
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="dbjobq-lifeline", daemon=True).start()


def _be_nobody(channel: Channel) -> None:
    """Cut a fork of the job's process off from the worker, and restore the default signal handling in it."""
    channel.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    logging.root.handlers = [logging.StreamHandler()]


class _Child:
    """Its life: hears in a thread, works in the main one.

    Args:
        channel: To the worker.
    """

    _setup: Setup
    """The settings of the worker, which come before the first job does."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._progress = _Progress(channel)
        self._orders: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
        self._tasks: dict[str, JobType] = {}
        self._storage: BaseStorage | None = None
        self.context: JobContext | None = None
        self._calls = Caller(self._contexts, self._wait, middleware=self._found_middleware)
        self._task: asyncio.Task[Any] | None = None
        threading.Thread(target=self._listen, name="dbjobq-listen", daemon=True).start()

    def work(self) -> None:
        """Do what the worker says, until it has nothing more to say."""
        while (order := self._orders.get()) is not None:
            if order[0] == "setup":
                self._set_up(order[1])
                continue
            _, claim, *home = order
            outcome = self._attempt(Claim(*claim), *home)
            self.context = self._task = None
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the function may have closed it
                    stream.flush()
            try:
                self._channel.send("done", *outcome._replace(exception=None)[1:])
            except OSError:
                os._exit(CUT)
        if self._storage is not None:
            self._storage.close()

    def _set_up(self, setup: Setup) -> None:
        sys.path[:], sys.argv[:] = setup["path"], setup["argv"]
        del os.environ["PYTHONPATH"]  # it had to find us
        if setup["pythonpath"] is not None:
            os.environ["PYTHONPATH"] = setup["pythonpath"]
        logging.root.addHandler(_Forward(self._channel))
        for name, level in setup["levels"].items():
            logging.getLogger(name).setLevel(level)
        self._setup = setup

    # What the worker says.

    def _listen(self) -> None:
        with suppress(OSError):  # the worker is gone
            while messages := self._channel.receive():
                for message in messages:
                    if message == ("cancel",):
                        self._cancel()
                    else:
                        self._orders.put(message)
        self._orders.put(None)

    def _cancel(self) -> None:
        context, task = self.context, self._task
        if context is not None:
            context.cancelled = True
        if task is not None:
            with suppress(RuntimeError):  # its loop has ended
                task.get_loop().call_soon_threadsafe(task.cancel)

    # One attempt.

    def _attempt(self, claim: Claim, module: str, file: str | None) -> Outcome:
        try:
            task = self._tasks.get(claim.type) or self._find(claim.type, module, file)
        except BaseException as error:  # a module may do anything when it is imported
            return unknown(claim, error, self._setup["unknown_within"])
        self._channel.send("started")
        running_here.set(lambda: claim)
        outcome = copy_context().run(run, None, claim, task, partial(self._call, task), self)
        assert outcome is not None  # noqa: S101 - there is no transaction that could have written it
        return outcome

    def _find(self, name: str, module: str, file: str | None) -> JobType:
        """Import what the worker has imported, and then the function's own module."""
        import_modules(self._setup["imports"])
        if file is None:
            import_modules([module])
        else:
            import_script(module, file)
        if (task := registered().get(name)) is None:
            raise UnknownJobType(
                name,
                f"executor='process' runs it in a process of its own, which has imported {file or module} and found it "
                "not registered by that. Decorate it with @job at the top level of a module, or of a script that is a "
                "file: not in a function, in a notebook, or under `if __name__ == '__main__'`",
            )
        self._tasks[name] = task  # not before: an import that failed half-way may have registered it, too
        return task

    def _found_middleware(self) -> list[Middleware]:
        """Return the worker's own middleware, by the names of its functions."""
        found: list[Middleware] = []
        for module, file, name in self._setup["middleware"]:
            if module and module not in sys.modules:
                if file is None:
                    import_modules([module])
                else:
                    import_script(module, file)
            if (function := defined_in(module, name)) is None:
                raise TypeError(
                    f"Worker(middleware=[{name}]): a job with executor='process' runs in a process of its own, which "
                    f"does not find it in {file or module or 'any module'}: define it at the top level of a module"
                )
            found.append(function)
        return found

    def _call(self, task: JobType, *given: Any) -> Any:
        call = self._calls.of(task)
        return asyncio.run(self._await(lambda: awaited(call(*given), task))) if task.is_async else call(*given)

    def _wait(self, rest: Coroutine[Any, Any, Any], _holder: Any) -> Any:
        return asyncio.run(self._await(lambda: rest))

    async def _await(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await what a call returns, where it can be cancelled."""
        self._task = asyncio.current_task()
        try:
            return await call()
        finally:
            self._task = None
            if self._storage is not None:
                await self._storage.aclose()

    def _contexts(self, task: JobType) -> Callable[[Claim, Any], JobContext]:
        if self._storage is None and (recipe := self._setup["recipe"]) is not None:
            self._storage = Recipe(*recipe).make()
        return contexts_of(self._storage, self._setup["worker_id"], self._progress.say)(task)


class _Progress:
    """Sends what a job says of itself: the last word of it, not every one, for it may say it in a loop.

    Args:
        channel: To the worker.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel, self._said, self._bell = channel, ("", ""), threading.Event()
        threading.Thread(target=self._send, name="dbjobq-progress", daemon=True).start()

    def say(self, claim: Claim, said: str) -> None:
        """Send it soon, unless something else is said before."""
        self._said = claim.claim, said
        self._bell.set()

    def _send(self) -> None:
        with suppress(OSError):
            while self._bell.wait():
                self._bell.clear()
                self._channel.send("progress", *self._said)
                time.sleep(PAUSE)


class _Forward(logging.Handler):
    """Lets the worker's process log what is logged here: its handlers and filters are not known here.

    Args:
        channel: To the worker.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = logging.Formatter()
        self.addFilter(name_job)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line; its arguments and its exception as text."""
        try:
            trace = self._formatter.formatException(record.exc_info) if record.exc_info else record.exc_text
            whole = {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": trace}
            rest = {name: _plain(value) for name, value in vars(record).items() if name not in whole}
            self._channel.send("log", rest | whole)
        except Exception:
            self.handleError(record)


def _plain(value: object) -> object:
    """Return a field of a log line as JSON has it: what is no JSON as text."""
    return value if type(value) in _PLAIN else json.loads(json.dumps(value, default=str))
