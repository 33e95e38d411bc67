"""Runs claimed jobs: `concurrency` slots take claims from one buffer, and leave outcomes to be written.

A slot is a task that lives as long as the worker and awaits one function after the other: a task for every job would
cost twice as much (docs/decisions/0005). A slot hands `def` jobs to a thread, several at once while they are short, and
awaits a job in a process of its own like an `async def`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context, copy_context

from dbjobq.attempt.call import Caller
from dbjobq.attempt.outcome import completed, failed
from dbjobq.attempt.run import ended_by, within
from dbjobq.attempt.settled import awaited, is_final, settled
from dbjobq.events.bus import emit
from dbjobq.events.loggers import running_here, worker_log
from dbjobq.events.names import JOB_STARTED, SLOT_BROKEN
from dbjobq.jobs.registry import JobType, registered
from dbjobq.runtime.bell import Alarm
from dbjobq.runtime.buffer import Buffer
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.contexts import contexts_of
from dbjobq.runtime.endings import Endings
from dbjobq.runtime.opener import Opener
from dbjobq.runtime.outcomes import Outcomes
from dbjobq.runtime.pace import SLICE, Pace
from dbjobq.runtime.processes.pool import Processes
from dbjobq.runtime.progress import Progress
from dbjobq.runtime.slot import Slot, Slots, absorb
from dbjobq.runtime.thread_jobs import ThreadJobs
from dbjobq.runtime.threads import Chunk, Threads
from dbjobq.runtime.trust import TrustWindow
from dbjobq.runtime.ways import Ways
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Executor"]


class Executor:
    """See the module. Used on the worker's event loop; any thread may ask what runs, and take back unstarted claims.

    Args:
        config: The worker's settings.
        storage: The storage, for contexts and transactions.
        lease: The worker's trust window: nothing is started once it is over.
        alarm: Rung when there are outcomes to write, or when a slot has nothing to do.
        worker_id: The worker's name, for `Job.worker_id`.
    """

    def __init__(
        self, config: WorkerConfig, storage: BaseStorage, lease: TrustWindow, alarm: Alarm, worker_id: str
    ) -> None:
        self._lease = lease
        self.slots = Slots()
        """The slots, and the jobs that run in them."""
        self.buffer = Buffer(self.slots, Pace(config.concurrency), alarm)
        """The claims that are not started."""
        self.outcomes = Outcomes(alarm)
        """The outcomes of jobs that ended."""
        self.progress = Progress()
        threads = Threads(config.concurrency, self._run_on_thread)
        contexts = contexts_of(storage, worker_id, self.progress.say)
        self._calls = Caller(contexts, threads.wait, middleware=lambda: config.middleware)
        processes = Processes(storage, worker_id, config)
        self.ways = Ways(storage, self._calls, processes, self.progress)
        self.endings = Endings(
            self.slots,
            limit=config.concurrency,
            waiting=self.buffer.claims,
            threads=threads,
            cut=storage.cut,
            log=self.outcomes.log,
            add_slot=self._add_slot,
        )
        self._thread_jobs = ThreadJobs(
            threads, self.buffer, self.outcomes, self.endings.abandon, closing=lambda: self._closing
        )
        self._opener = Opener(config.imports, config.unknown_within)
        self._context = copy_context()
        self._closing = False

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self.buffer.pace.slots):
            self._add_slot()

    def unwritten(self) -> list[Outcome]:
        """Return the outcomes that nobody has taken to write yet, those of threads' chunks included."""
        in_threads = (outcome for chunk in self.slots.chunks() for outcome in tuple(chunk.outcomes))
        return [*self.outcomes.fresh, *in_threads]

    def held(self) -> list[Claim]:
        """Return all claims without a written outcome; perhaps a few with one."""
        held = [*self.buffer.claims, *(outcome.claim for outcome in self.outcomes.fresh)]
        for slot in tuple(self.slots):
            held += slot.chunk.claims if slot.chunk is not None else [slot.claim] if slot.claim is not None else []
        return held

    async def close(self) -> None:
        """End the slots, whatever they do."""
        self._closing = True
        self._thread_jobs.stop()
        tasks = [slot.task for slot in self.slots if slot.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)  # a function may swallow its cancellation
        await self.ways.close()

    # Slots.

    def _add_slot(self) -> None:
        slot = Slot()
        self.slots.add(slot)
        # A fresh context, without the context variables of earlier jobs.
        context = self._context.copy()
        context.run(running_here.set, slot.running)
        slot.task = asyncio.get_running_loop().create_task(self._work(slot), name="dbjobq-slot", context=context)
        slot.task.add_done_callback(lambda task: self._replace(slot, task))

    def _replace(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """Replace a slot that ended, and write the outcome of the job that it held."""
        self.slots.discard(slot)
        if self._closing:
            return
        error = None if task.cancelled() else task.exception()
        if slot.claim is not None and not slot.verdict:
            self.outcomes.add(failed(slot.claim, error or asyncio.CancelledError("the job's task was cancelled")))
        if error is not None:
            emit(SLOT_BROKEN, exception=error)
        if slot.relieved:
            self.outcomes.alarm.ring()  # the poller may wait for the slots to come to rest
        else:
            self._add_slot()

    async def _work(self, slot: Slot) -> None:
        """Run jobs, one stretch after the other, until the slot has lost its place or its clean context."""
        clean = copy_context()
        self.buffer.wake(taken=1)
        while not (slot.relieved or self._closing or copy_context() != clean):
            try:
                claim = self.buffer.claims.popleft()
            except IndexError:
                await self.buffer.wait()
                self.buffer.wake(taken=1)
                continue
            task = registered().get(claim.type)
            if task is None or task.on_thread or not self._lease.alive():
                task = await self._elsewhere(slot, claim, task)
            if task is not None:
                await self._run(slot, claim, task, clean)

    async def _run(self, slot: Slot, claim: Claim, task: JobType, clean: Context) -> None:  # noqa: C901, PLR0912 - the hot loop: a call for each step would cost more than the step
        """Run a job, and those of its type that follow in the buffer, for a slice of time."""
        buffer, outcomes, alarm = self.buffer.claims, self.outcomes, self.outcomes.alarm
        clock, type_, me = time.perf_counter, claim.type, slot.task
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
                    outcome = await self.ways.apart(claim, task, timeout, slot)
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
                outcomes.fresh.append(outcome)
                if not alarm.rung:
                    alarm.ring()
                if debug or outcome.event != "complete":
                    outcomes.log(outcome)
            slot.claim = slot.context = None
            if me.cancelling():
                await absorb(me)
            if slot.relieved or self._closing or copy_context() != clean:
                break
            try:
                if buffer[0].type != type_ or clock() - since > SLICE or not self._lease.alive():
                    break
                claim = buffer.popleft()
            except IndexError:  # no claim follows, or it was taken back at this moment
                break
        self.buffer.pace.took(type_, jobs, clock() - since)
        if buffer and clock() - since > SLICE:
            await asyncio.sleep(0)

    async def _elsewhere(self, slot: Slot, claim: Claim, task: JobType | None) -> JobType | None:
        """Return the type of a job that the slot is to run itself; None if it was run on a thread, or not at all."""
        if not self._lease.alive():
            self.outcomes.release(claim)
            return None
        task = task or await self._find(slot, claim)
        if task is not None and task.on_thread:
            await self._thread_jobs.run(slot, claim, task)
            return None
        return task

    async def _find(self, slot: Slot, claim: Claim) -> JobType | None:
        """Return a type that nobody has registered yet; None if the job's outcome is known instead."""
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
                self.outcomes.add(self._opener.unknown(claim, error))
            await absorb(me)
        finally:
            slot.claim, slot.verdict = None, ""
        return None

    def _run_on_thread(self, claim: Claim, task: JobType, chunk: Chunk) -> Outcome | None:
        """Run one `def` job; called in its thread."""
        if not self._lease.alive() or chunk.abandoned:
            return Outcome(claim, "release")
        return self.ways.in_thread(claim, task, chunk)
