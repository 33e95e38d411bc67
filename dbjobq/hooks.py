"""Code of yours that is told what happens: jobs enqueued, claimed, ended and rescued, and what a worker logs of itself.

    from dbjobq import Hooks, hooks

    class Counted(Hooks):
        def ended(self, batch, refused):
            ENDED.inc(len(batch))

    hooks.add(Counted())

Hooks are told of batches, never of single jobs, and only the methods that a subclass overrides are called: who has none
pays for one test in each exchange with the database, some hundreds of jobs. A hook cannot hurt: what it raises is
logged, and all but `enqueueing` are called by a thread of their own, where a slow one keeps nobody but the other hooks.

Hooks are the process's. What happens around one attempt is a middleware's, not a hook's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from dbjobq.events.bus import Event, emit, subscribe, unsubscribe
from dbjobq.events.names import HOOK_FAILED, HOOK_LEFT_OUT, HOOK_SLOW
from dbjobq.storage.values import Claim, NewJob, Outcome, Rescued

__all__ = ["Claim", "Hooks", "NewJob", "Outcome", "Rescued", "WorkerSaid", "add", "remove"]

SLOW_CALL: Final = 0.05
"""Seconds after which a call of `enqueueing` is reported: the caller waits for it."""
LONG_CALL: Final = 1.0
"""Seconds after which another call is reported."""
REPORT_EVERY: Final = 60.0
"""Seconds between two reports of the same kind about one hook."""
MOST_WAITING: Final = 300
"""Calls that may wait for a slow hook, each with the jobs of an exchange. Further ones are left out, and counted."""


class WorkerSaid(NamedTuple):
    """An event that is about no single job's outcome, as the log has it (docs/events.md)."""

    event: str
    """The event's name, such as `worker.started` or `database.lost`."""
    level: int
    """The level, as `logging` has it."""
    fields: Mapping[str, Any]
    """The event's data, by the names that the page of events has."""
    exception: BaseException | None
    """The exception that belongs to it, if there is one."""


class Hooks:
    """Base of your hooks: override what you need.

    Methods are plain functions, not `async def`. What they are given is to be read, not changed.
    """

    def enqueueing(self, jobs: Sequence[NewJob]) -> None:
        """Jobs are about to be written: on the caller's thread or event loop, before the statement.

        Args:
            jobs: The job of an `enqueue`; of an `enqueue_many` one that stands for all, whose `data` is empty.
        """

    def claimed(self, batch: Sequence[Claim]) -> None:
        """A worker of this process has claimed jobs."""

    def ended(self, batch: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        """Outcomes of attempts have been written, and are durable.

        Args:
            batch: The outcomes that were written; `Outcome.event` is `complete`, `retry`, `fail`, or `release` and
                `unknown` for jobs that were handed back or put off, which uses up no attempt.
            refused: The outcomes that were refused, since the job was cancelled or another worker has it.
        """

    def rescued(self, jobs: Sequence[Rescued]) -> None:
        """Jobs have been taken back from a worker that is gone, by a worker of this process."""

    def worker(self, said: WorkerSaid) -> None:
        """An event has been logged that is not the subject of the other methods."""


class _Called:
    """The methods to call, of all hooks, in the order in which those were added."""

    def __init__(self, hooks: Sequence[Hooks] = ()) -> None:
        self.hooks = tuple(hooks)
        self.enqueueing = tuple(h.enqueueing for h in hooks if type(h).enqueueing is not Hooks.enqueueing)
        self.claimed = tuple(h.claimed for h in hooks if type(h).claimed is not Hooks.claimed)
        self.ended = tuple(h.ended for h in hooks if type(h).ended is not Hooks.ended)
        self.rescued = tuple(h.rescued for h in hooks if type(h).rescued is not Hooks.rescued)
        self.worker = tuple(h.worker for h in hooks if type(h).worker is not Hooks.worker)


_NAMES: Final = ("enqueueing", "claimed", "ended", "rescued", "worker")

_called = _Called()
_lock: Final = threading.Lock()


def add(hooks: Hooks, /) -> None:
    """Have hooks told of what happens in this process from now on.

    Add them where the module of your jobs is imported, so that every process of a worker has them.

    Raises:
        TypeError: They are no `Hooks`, or a method is an `async def`.
    """
    if not isinstance(hooks, Hooks):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise TypeError(f"{hooks!r}: must be an object of a subclass of dbjobq.Hooks")
    for name in _NAMES:
        if iscoroutinefunction(getattr(hooks, name)):
            raise TypeError(f"{type(hooks).__qualname__}.{name}: must be a def; hooks are called, not awaited")
    with _lock:
        _change((*_called.hooks, hooks))


def remove(hooks: Hooks, /) -> None:
    """Tell hooks nothing more. What they are being told, they are told to the end."""
    with _lock:
        _change(tuple(other for other in _called.hooks if other is not hooks))


def _change(hooks: tuple[Hooks, ...]) -> None:
    global _called  # noqa: PLW0603 - read without a lock, replaced as a whole
    unsubscribe(_heard)
    _called = _Called(hooks)
    if _called.worker:
        subscribe(_heard)


# What dbjobq tells.


def tell_enqueueing(job: NewJob) -> None:
    """Tell of a job that is about to be written, or of the one that stands for many."""
    if _called.enqueueing:
        for hook in _called.enqueueing:
            _call(hook, ([job],), SLOW_CALL)


def tell_claimed(batch: Sequence[Claim]) -> None:
    """Tell of what a claim has brought."""
    if _called.claimed and batch:
        _teller.tell(_called.claimed, batch)


def tell_ended(batch: Sequence[Outcome], refused: Sequence[Outcome] = (), gave_up: Sequence[Outcome] = ()) -> None:
    """Tell what came of outcomes.

    Args:
        batch: What was sent.
        refused: Those of it that were not written.
        gave_up: Those `unknown` ones of it with which the job has failed.
    """
    if _called.ended and (batch or refused):
        if refused or gave_up:
            apart = {outcome.claim.claim for outcome in (*refused, *gave_up)}
            batch = [outcome for outcome in batch if outcome.claim.claim not in apart]
            batch += [outcome._replace(event="fail") for outcome in gave_up]
        _teller.tell(_called.ended, batch, refused)


def tell_rescued(jobs: Sequence[Rescued]) -> None:
    """Tell of what was taken back from workers that are gone."""
    if _called.rescued and jobs:
        _teller.tell(_called.rescued, jobs)


def settle(timeout: float) -> None:
    """Wait until hooks have been told what happened until now, or the time is over."""
    _teller.settle(timeout)


def _heard(event: Event, level: int, fields: Mapping[str, Any], exception: BaseException | None) -> None:
    if not event.batched:
        _teller.tell(_called.worker, WorkerSaid(event.name, level, fields, exception))


class _Teller:
    """A thread that makes calls one after the other, so that none of them is made on a worker's event loop or threads.

    The thread is there from the first call on. A process that was forked from this one begins anew.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what was not told yet, and the thread."""
        self._calls: SimpleQueue[tuple[Sequence[Callable[..., None]], tuple[Any, ...]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._left_out = 0

    def tell(self, hooks: Sequence[Callable[..., None]], *said: Any) -> None:
        """Have hooks called soon, in order."""
        if self._calls.qsize() >= MOST_WAITING:
            self._left_out += 1
            return
        self._calls.put((hooks, said))
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="dbjobq-hooks", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            hooks, said = self._calls.get()
            for hook in hooks:
                _call(hook, said, LONG_CALL)
            del hooks, said  # while it waits for the next
            if self._left_out and _reports(self, HOOK_LEFT_OUT):
                left_out, self._left_out = self._left_out, 0
                emit(HOOK_LEFT_OUT, calls=left_out)

    def settle(self, timeout: float) -> None:
        """Wait until hooks have heard what was told before this call, or the time is over."""
        if self._thread is None or threading.current_thread() is self._thread:
            return
        heard = threading.Event()
        self._calls.put(((heard.set,), ()))
        heard.wait(timeout)


_teller: Final = _Teller()
os.register_at_fork(after_in_child=_teller.renew)
_reported: Final[dict[tuple[object, str], float]] = {}


def _call(hook: Callable[..., None], said: tuple[Any, ...], limit: float) -> None:
    began = time.monotonic()
    try:
        hook(*said)
    except KeyboardInterrupt:  # the program's own, whose thread this is
        raise
    except BaseException as error:  # sys.exit() in a hook ends nothing
        if _reports(hook, HOOK_FAILED):
            emit(HOOK_FAILED, exception=error, hook=_name(hook))
    took = time.monotonic() - began
    if took > limit and _reports(hook, HOOK_SLOW):
        emit(HOOK_SLOW, hook=_name(hook), seconds=round(took, 3))


def _reports(whom: object, event: Event) -> bool:
    """Tell whether to report this; then it is held to be reported, and not again for a while."""
    now = time.monotonic()
    if now < _reported.get((whom, event.name), float("-inf")) + REPORT_EVERY:
        return False
    _reported[whom, event.name] = now
    return True


def _name(hook: Callable[..., None]) -> str:
    return f"{type(getattr(hook, '__self__', hook)).__qualname__}.{getattr(hook, '__name__', '')}"
