"""Runs claimed jobs: `concurrency` slots take claims from one buffer, and leave outcomes to be written.

A slot is a task that lives as long as the worker and awaits one function after the other: a task for every job would
cost twice as much (docs/decisions/0005). A slot hands `def` jobs to a thread, several at once while they are short, and
awaits a job in a process of its own like an `async def`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from dbjobq.attempt.call import Caller
from dbjobq.attempt.outcome import completed, failed, unfinished, unknown
from dbjobq.attempt.run import OVERRUN, arun, ended_by, run, within
from dbjobq.attempt.settled import awaited, is_final, settled
from dbjobq.events.bus import emit
from dbjobq.events.loggers import running_here, worker_log
from dbjobq.events.names import (
    JOB_CANCELLED,
    JOB_COMPLETED,
    JOB_FAILED,
    JOB_FENCED,
    JOB_RELEASED,
    JOB_RETRY,
    JOB_STARTED,
    JOB_STUCK,
    JOB_TAKEN,
    JOB_UNKNOWN,
    SLOT_BROKEN,
    THREAD_ABANDONED,
    THREAD_UNAVAILABLE,
)
from dbjobq.jobs.registry import Task, registered
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.contexts import contexts_of
from dbjobq.runtime.opener import Opener
from dbjobq.runtime.pace import ALONE, BATCH, LARGE, SPACE, Means, Pace
from dbjobq.runtime.processes.pool import Processes
from dbjobq.runtime.progress import Progress
from dbjobq.runtime.slot import Slot, Verdict
from dbjobq.runtime.threads import Chunk, Threads
from dbjobq.runtime.trust import Lease, now
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Executor", "Whereabouts"]

SLICE: Final = 0.002
"""Seconds of short jobs after which a slot lets the rest of the event loop run; also the worth of a thread's chunk."""
CHUNK: Final = 64
"""The most jobs in a chunk for a thread."""
WAKES: Final = 2
"""How many slots wake at first, and how many more each of them wakes while there are jobs. A single slot can run a
batch of no-op jobs, and waking all the others for nothing would cost more than the jobs."""
SHORT: Final = 0.0005
"""Seconds below which `def` jobs go to threads by the chunk."""

MANY_TYPES: Final = 1000
"""The most job types that are remembered as unknown, so that each is advised on once."""
THREADLESS: Final = 1.0
"""Seconds before a slot goes on for which the system had no thread."""


class Whereabouts(NamedTuple):
    """A running job, with its task on the event loop or its thread."""

    claim: Claim
    task: asyncio.Task[None] | None
    thread: int | None


class Executor:
    """See the module. Used on the worker's event loop; any thread may ask what runs, and take back unstarted claims.

    Args:
        config: The worker's settings.
        storage: The storage, for contexts and transactions.
        lease: The worker's trust window: nothing is started once it is over.
        alarm: Rung when there are outcomes to write, or when a slot has nothing to do.
        worker_id: The worker's name, for `Job.worker_id`.
    """

    def __init__(self, config: WorkerConfig, storage: BaseStorage, lease: Lease, alarm: Alarm, worker_id: str) -> None:
        self._config, self._storage, self._lease, self._alarm = config, storage, lease, alarm
        self.pace = Pace(config.concurrency)
        self._in_thread = Means()
        self.progress = Progress()
        self.processes = Processes(storage, worker_id, config)
        self._opener = Opener(config.imports)
        self._buffer: deque[Claim] = deque()
        self._outcomes: list[Outcome] = []
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(config.concurrency, self._run_on_thread)
        contexts = contexts_of(storage, worker_id, self.progress.say)
        self._calls = Caller(contexts, self._threads.wait, middleware=lambda: config.middleware)
        self._context = copy_context()
        self._slots: set[Slot] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._unknown: set[str] = set()
        self._closing = False
        self._alone_until = float("-inf")
        self._large = False

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self._config.concurrency):
            self._add_slot()

    # For the poller.

    @property
    def idle(self) -> int:
        """How many slots have nothing to do."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many claims are not started."""
        return len(self._waiting())

    def _waiting(self) -> list[str]:
        """Return the types of the claims that are not started."""
        chunks = (slot.chunk.waiting for slot in self._slots if slot.chunk is not None)
        return [*[claim.type for claim in self._buffer], *(c.type for chunk in chunks for c, _ in tuple(chunk))]

    @property
    def busy(self) -> int:
        """How many slots are at work."""
        return len(self._slots) - len(self._idle)

    @property
    def settled(self) -> bool:
        """Whether the outcome of every claimed job is known, though some function may still run."""
        return self.waiting == 0 and len(self._idle) + sum(bool(s.verdict) for s in self._slots) >= len(self._slots)

    @property
    def holding(self) -> bool:
        """Whether the outcome of some claimed job is not handed over yet."""
        return bool(self._buffer) or self.busy > 0

    def running(self) -> list[Claim]:
        """Return the claims of the jobs that run at this moment."""
        return [claim for slot in tuple(self._slots) if (claim := slot.running()) is not None]

    def whereabouts(self) -> list[Whereabouts]:
        """Return the jobs that run at this moment, and where each runs."""
        found: list[Whereabouts] = []
        for slot in tuple(self._slots):
            chunk, task = slot.chunk, slot.task
            if (claim := slot.running()) is not None:
                found.append(Whereabouts(claim, *((task, None) if chunk is None else (None, chunk.thread))))
        return found

    def unwritten(self) -> list[Outcome]:
        """Return the outcomes that nobody has taken to write yet, those of threads' chunks included."""
        chunks = [chunk for slot in tuple(self._slots) if (chunk := slot.chunk) is not None]
        return [*self._outcomes, *(outcome for chunk in chunks for outcome in tuple(chunk.outcomes))]

    def held(self) -> list[Claim]:
        """Return all claims without a written outcome; perhaps a few with one."""
        held = [*self._buffer, *(outcome.claim for outcome in self._outcomes)]
        for slot in tuple(self._slots):
            held += slot.chunk.claims if slot.chunk is not None else [slot.claim] if slot.claim is not None else []
        return held

    def wants(self) -> int:
        """Return how many jobs to claim: one for each free slot, and some ahead while jobs are short."""
        if self.full:
            return 0
        waiting = self._waiting()
        free = max(0, self.idle - len(waiting))
        working = (slot.running() for slot in self._slots if not slot.relieved)
        ahead = self.pace.ahead(waiting, [claim.type for claim in working if claim is not None])
        return min(free + ahead, max(BATCH, free), 1 if self.pace.singly else BATCH + free)

    @property
    def full(self) -> bool:
        """Whether to claim nothing, though slots may be free.

        Either the held jobs leave no space for more arguments, or a suspect, with which a worker has died, has just
        begun: claimed together, suspects would die together again.
        """
        if self._alone_until > now() and any(claim.suspect for claim in self._holds()):
            return True
        if self._large:
            held = SPACE - self.space()
            self._large = held > 0
            return held >= SPACE
        return False

    def space(self) -> int:
        """Return for how many bytes of large arguments there is room."""
        return SPACE - sum(size for claim in self._holds() if (size := len(claim.data)) > LARGE)

    def _holds(self) -> list[Claim]:
        """Return the claims that are held and have not ended."""
        waiting = [claim for slot in self._slots if slot.chunk for claim, _ in tuple(slot.chunk.waiting)]
        return [*self._buffer, *waiting, *self.running()]

    def room(self, claims: list[Claim]) -> int:
        """Return how many of these claims to add, in their order; the others would wait for too long."""
        room = self.pace.hold(self.idle, self._waiting(), claims)
        alone = next((number for number, claim in enumerate(claims) if claim.suspect), room)
        return min(room, alone + 1)

    def add(self, claims: list[Claim]) -> None:
        """Take over claims, and let idle slots start at once."""
        if self.pace.singly and any(claim.suspect for claim in claims):
            self._alone_until = now() + ALONE
        self._large = self._large or any(len(claim.data) > LARGE for claim in claims)
        self._buffer.extend(claims)
        self._wake_slots()

    def take_outcomes(self) -> list[Outcome]:
        """Return the outcomes since the last call; they are the caller's to write."""
        taken, self._outcomes = self._outcomes, []
        return taken

    def take_back(self) -> list[Claim]:
        """Take all claims that are not started out of the buffer, and return them."""
        back: list[Claim] = []
        with suppress(IndexError):  # from behind, one by one: another thread may do this, and each is started or taken
            while True:
                back.append(self._buffer.pop())
        back.reverse()
        for slot in tuple(self._slots):
            if (chunk := slot.chunk) is not None:
                back += chunk.take_back()
        return back

    def share(self) -> None:
        """Let idle slots start the claims that wait in the chunks of threads which a long job keeps busy."""
        if self._idle and not self._buffer:
            for slot in self._slots:
                if slot.chunk is not None and slot.chunk.waiting:
                    self._buffer.extend(slot.chunk.take_back())
            self._wake_slots()

    def relieve(self, claims: Collection[Claim]) -> None:
        """Give the slots of these long jobs to others: the jobs go on, and their results count.

        At most as many slots are replaced as there are.
        """
        left = self._config.concurrency - sum(slot.relieved for slot in self._slots)
        for slot in tuple(self._slots):
            claim = slot.running()
            if claim is not None and claim in claims and left > 0 and not (slot.relieved or slot.verdict):
                left -= 1
                slot.relieved = True
                if slot.chunk is not None:
                    self._threads.relieve(slot.chunk)
                emit(JOB_STUCK, claim, slots_left=left)
                self._add_slot()

    # Jobs that end from outside.

    def runs(self, job_id: str) -> bool:
        """Tell whether a job runs here."""
        return any(claim.id == job_id for claim in self.running())

    def lost(self, claims: Mapping[Claim, bool]) -> None:
        """Jobs are no longer held: tell their functions, and drop what those return.

        Args:
            claims: The jobs; True for a cancelled one, False for one that another worker has.
        """
        for slot, claim in self._that_run(claims):
            cancelled = claims[claim]
            emit(JOB_CANCELLED if cancelled else JOB_TAKEN, claim)
            self._abandon(slot, claim, "cancelled" if cancelled else "taken")

    def drop(self, claims: Collection[Claim]) -> None:
        """Drop jobs whose outcomes were written in the event loop's place: tell their functions, and ignore results."""
        for slot, claim in self._that_run(set(claims)):
            self._abandon(slot, claim, "released")

    def _that_run(self, claims: Collection[Claim]) -> list[tuple[Slot, Claim]]:
        """Return the slots and claims of the given jobs that run and were not ended from outside yet."""
        running = ((slot, slot.running()) for slot in tuple(self._slots) if not slot.verdict)
        return [(slot, claim) for slot, claim in running if claim is not None and claim in claims]

    def cut_off(self, claims: Collection[Claim]) -> None:
        """End the transactions of these jobs for a blocked event loop: others would wait for them. From any thread."""
        for slot in tuple(self._slots):
            if (connection := slot.connection) is not None and slot.claim in claims:
                self._storage.cut(connection)

    def fence(self) -> bool:
        """End running jobs, as far as possible, since the lease is over and others may start them; tell if any ran.

        A job on a thread goes on; its result counts if nobody has taken the job by the time it can be written.
        """
        fenced = False
        for slot in tuple(self._slots):
            if slot.claim is not None and not slot.verdict:
                emit(JOB_FENCED, slot.claim)
                self._abandon(slot, slot.claim, "fenced")
                fenced = True
        return fenced

    def hand_back(self) -> list[Outcome]:
        """End running jobs, as far as possible, and return the outcomes that hand them back."""
        ended: list[Outcome] = []
        for slot in tuple(self._slots):
            if (claim := slot.running()) is not None and not slot.verdict:
                ended.append(unfinished(claim))
                self.log(ended[-1])
                self._abandon(slot, claim, "released")
        return ended

    def _abandon(self, slot: Slot, claim: Claim, verdict: Verdict) -> None:
        if slot.verdict:
            return
        slot.verdict = verdict
        context = slot.context if slot.chunk is None else slot.chunk.context
        if context is not None:
            context.cancelled = True
        if slot.chunk is not None:
            self._buffer.extendleft(reversed(slot.chunk.take_back()))
            self._threads.abandon(slot.chunk)
            if not slot.chunk.done.done():
                slot.chunk.done.set_result(None)
            emit(THREAD_ABANDONED, claim, quietly=verdict == "cancelled")
        elif slot.task is not None:
            slot.task.cancel()

    async def close(self) -> None:
        """End the slots, whatever they do."""
        self._closing = True
        self._threads.stop()
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)  # a function may swallow its cancellation
        await self.processes.close()

    # Slots.

    def _add_slot(self) -> None:
        slot = Slot()
        self._slots.add(slot)
        # A fresh context, without the context variables of earlier jobs.
        context = self._context.copy()
        context.run(running_here.set, slot.running)
        slot.task = self._loop.create_task(self._work(slot), name="dbjobq-slot", context=context)
        slot.task.add_done_callback(lambda task: self._replace(slot, task))

    def _replace(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """Replace a slot that ended, and write the outcome of the job that it held."""
        self._slots.discard(slot)
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        if slot.claim is not None and not slot.verdict:
            self._ended(failed(slot.claim, error or asyncio.CancelledError("the job's task was cancelled")))
        if error is not None:
            emit(SLOT_BROKEN, exception=error)
        if slot.relieved:
            self._alarm.ring()  # the poller may wait for the slots to come to rest
        else:
            self._add_slot()

    def _wake_slots(self, taken: int = 0) -> None:
        """Wake some slots, each of which wakes others; `taken` claims of the buffer are spoken for."""
        for _ in range(min(WAKES, len(self._idle), len(self._buffer) - taken)):
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_for_work(self) -> None:
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        self._alarm.ring()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise

    async def _work(self, slot: Slot) -> None:
        """Run jobs, one stretch after the other, until the slot has lost its place or its clean context."""
        clean = copy_context()
        self._wake_slots(taken=1)
        while not (slot.relieved or self._closing or copy_context() != clean):
            try:
                claim = self._buffer.popleft()
            except IndexError:
                await self._wait_for_work()
                self._wake_slots(taken=1)
                continue
            task = registered().get(claim.type)
            if task is None or task.on_thread or not self._lease.alive():
                task = await self._elsewhere(slot, claim, task)
            if task is not None:
                await self._run(slot, claim, task, clean)

    async def _run(self, slot: Slot, claim: Claim, task: Task, clean: Context) -> None:  # noqa: C901, PLR0912 - the hot loop: a call for each step would cost more than the step
        """Run a job, and those of its type that follow in the buffer, for a slice of time."""
        buffer, clock, alarm, type_, me = self._buffer, time.perf_counter, self._alarm, claim.type, slot.task
        call, debug = self._calls.of(task), worker_log.isEnabledFor(logging.DEBUG)
        assert me is not None  # noqa: S101 - it is this task
        jobs, since = 0, clock()
        while True:
            if debug:
                emit(JOB_STARTED, claim)
            slot.claim = claim
            jobs += 1
            try:
                timeout = claim.timeout or task.timeout
                if task.apart:
                    outcome = await self._apart(claim, task, timeout, slot)
                else:
                    called = call(claim, None, slot)
                    result = await (called if timeout is None else within(timeout, awaited(called, task)))
                    if result is None:
                        outcome = Outcome(claim, "complete")
                    else:
                        outcome = completed(claim, result if is_final(result) else await settled(result, task))
            except BaseException as error:  # sys.exit() in a handler is the job's failure, not the worker's end
                if self._closing or isinstance(error, GeneratorExit):
                    raise
                outcome = ended_by(claim, task, error)
            if slot.verdict:
                slot.verdict = ""
            elif outcome is not None:
                self._outcomes.append(outcome)
                if not alarm.rung:
                    alarm.ring()
                if debug or outcome.event != "complete":
                    self.log(outcome)
            slot.claim = slot.context = None
            if me.cancelling():
                await self._absorb(me)
            if slot.relieved or self._closing or copy_context() != clean:
                break
            try:
                if buffer[0].type != type_ or clock() - since > SLICE or not self._lease.alive():
                    break
                claim = buffer.popleft()
            except IndexError:  # no claim follows, or it was taken back at this moment
                break
        self.pace.took(type_, jobs, clock() - since)
        if buffer and clock() - since > SLICE:
            await asyncio.sleep(0)

    async def _elsewhere(self, slot: Slot, claim: Claim, task: Task | None) -> Task | None:
        """Return the type of a job that the slot is to run itself; None if it was run on a thread, or not at all."""
        if not self._lease.alive():
            self._release(claim)
            return None
        task = task or await self._find(slot, claim)
        if task is not None and task.on_thread:
            await self._hand_to_thread(slot, claim, task)
            return None
        return task

    async def _apart(
        self,
        claim: Claim,
        task: Task,
        timeout: float | None,  # noqa: ASYNC109 - the job's own
        slot: Slot,
    ) -> Outcome | None:
        """Run a job in a process of its own, or an `async def` in its transaction; None if that has written its end."""
        if task.executor == "process":
            return await self.processes.run(claim, task, timeout, slot, partial(self.progress.say, claim))
        called = self._calls.of(task)

        async def call(claim: Claim, connection: Any, slot: Slot) -> Any:
            slot.connection = connection
            return await within(timeout, awaited(called(claim, connection, slot), task))

        try:
            return await arun(self._storage, claim, task, call, slot)
        finally:
            slot.connection = None

    @staticmethod
    async def _absorb(task: asyncio.Task[None]) -> None:
        """Clear what is left of a cancellation that was meant for the job, and not for the slot's task."""
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        while task.cancelling():
            task.uncancel()

    async def _find(self, slot: Slot, claim: Claim) -> Task | None:
        """Return the task of a type that nobody has registered yet; None if the job's outcome is known instead."""
        me = slot.task
        assert me is not None  # noqa: S101 - it is this task
        try:
            if (task := self._opener.quickly(claim.type)) is not None:
                return task
            slot.claim = claim
            return await self._opener.find(claim)
        except BaseException as error:  # a module may do anything when it is imported
            if self._closing or isinstance(error, GeneratorExit):
                raise
            if not slot.verdict:
                self._ended(unknown(claim, error, self._config.unknown_within))
            await self._absorb(me)
        finally:
            slot.claim, slot.verdict = None, ""
        return None

    def _ended(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._alarm.ring()
        self.log(outcome)

    def log(self, outcome: Outcome) -> None:
        """Log how an attempt ended; of an unknown type the first job alone at WARNING, with advice."""
        claim = outcome.claim
        if outcome.event == "complete":
            emit(JOB_COMPLETED, claim)
            return
        if outcome.event == "release":
            emit(JOB_RELEASED, claim)
            return
        error = (outcome.error or "").partition("\n")[0]
        if outcome.event == "unknown":
            emit(JOB_UNKNOWN, claim, quietly=claim.type in self._unknown, error=error)
            if len(self._unknown) >= MANY_TYPES:  # rows may name what they like
                self._unknown.clear()
            self._unknown.add(claim.type)
        elif outcome.event == "fail":
            emit(JOB_FAILED, claim, exception=outcome.exception, error=error)
        else:
            emit(JOB_RETRY, claim, error=error, delay=round(outcome.delay, 3))

    def _release(self, claim: Claim) -> None:
        self._outcomes.append(Outcome(claim, "release"))
        self._alarm.ring()

    # `def` jobs.

    async def _hand_to_thread(self, slot: Slot, claim: Claim, task: Task) -> None:
        timeout = claim.timeout or task.timeout
        chunk = slot.chunk = Chunk(self._with_others(claim, task, timeout), self._loop.create_future())
        size, since = len(chunk.claims), time.perf_counter()
        if (error := self._threads.submit(chunk)) is not None:
            await self._do_without(slot, chunk, error)
            return
        try:
            while not chunk.done.done():
                try:
                    await asyncio.wait_for(asyncio.shield(chunk.done), timeout)
                except asyncio.CancelledError:  # a function has cancelled whatever task it found
                    if self._closing or slot.task is None:
                        raise
                    await self._absorb(slot.task)
        except TimeoutError:
            if chunk.take_back():  # no thread has come to it
                self._release(claim)
            elif not chunk.abandoned and not chunk.outcomes:
                self._abandon(slot, claim, "released")
                self._ended(failed(claim, TimeoutError(OVERRUN.format(timeout)), task.retry))
        finally:
            slot.chunk, slot.verdict = None, ""
        self._outcomes += chunk.outcomes
        for outcome in chunk.outcomes:
            if outcome.event != "complete":
                self.log(outcome)
        ran, seconds = max(1, size - len(chunk.waiting)), time.perf_counter() - since
        self.pace.took(task.name, ran, seconds)
        self._in_thread.took(task.name, ran, chunk.seconds or seconds)
        self._alarm.ring()

    async def _do_without(self, slot: Slot, chunk: Chunk, error: RuntimeError) -> None:
        """Hand back a chunk for which the system has no thread, since jobs have left so many behind; wait a moment."""
        slot.chunk = None
        for claim in chunk.take_back():
            emit(THREAD_UNAVAILABLE, claim, error=str(error))
            self._release(claim)
        await asyncio.sleep(THREADLESS)

    def _with_others(self, claim: Claim, task: Task, timeout: float | None) -> deque[tuple[Claim, Task]]:
        """Return a `def` job's claim with those that follow in the buffer, as far as they can share a thread's turn."""
        buffer, tasks, waiting = self._buffer, registered(), deque([(claim, task)])
        each = self._in_thread.of(task.name)  # a slot's time has the wait for a thread and its turn in it
        if timeout is not None or each >= SHORT or claim.fragile:
            return waiting
        size = min(CHUNK, int(SLICE / max(each, 1e-6)))
        with suppress(IndexError):
            while len(waiting) < size and not (following := buffer[0]).fragile:
                other = tasks.get(following.type)
                if other is None or not other.on_thread or other.timeout is not None or following.timeout is not None:
                    break
                waiting.append((buffer.popleft(), other))
        return waiting

    def _run_on_thread(self, claim: Claim, task: Task, chunk: Chunk) -> Outcome | None:
        """Run one `def` job; called in its thread."""
        if not self._lease.alive() or chunk.abandoned:
            return Outcome(claim, "release")
        return run(self._storage, claim, task, self._calls.of(task), chunk)
