"""Turns a claim into the call of its function: reads the arguments, and makes the context where there is one.

The call is put together once for each job type, so a plain job costs one call more than its function: nothing is
decided anew for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from dbjobq.attempt.settled import is_final, settled
from dbjobq.codec.json import load_arguments
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.registry import Task
from dbjobq.storage.values import Claim

__all__ = ["Call", "Caller", "Contexts", "Holder", "Load", "Wait"]


class Holder(Protocol):
    """The object that runs an attempt, and that tells the function of a cancellation through its context."""

    context: JobContext | None


Call: TypeAlias = Callable[[Claim, Any, Any], Any]
"""Calls a job's function, given the claim, the transaction's connection (or None) and the holder. Returns what the
function returns, which for an `async def` is its coroutine."""

Contexts: TypeAlias = Callable[[Task], Callable[[Claim, Any], JobContext]]
"""Returns, for a job type, the function that makes the context of each attempt from its claim and its connection."""

Load: TypeAlias = Callable[[str], dict[str, Any]]
"""Reads arguments from the text as which they are stored."""

Wait: TypeAlias = Callable[[Coroutine[Any, Any, Any], Any], Any]
"""Waits in a thread for a coroutine, given with its holder, and returns its result."""


class Caller:
    """The calls of all job types that one worker, process or queue runs.

    Args:
        contexts: Makes contexts, for the job types that take one.
        wait: Waits for a `def`'s result that is still to be awaited.
        load: Reads arguments.
    """

    def __init__(self, contexts: Contexts, wait: Wait, load: Load = load_arguments) -> None:
        self._contexts, self._wait, self._load = contexts, wait, load
        self.known: dict[Task, Call] = {}
        """The calls made so far, for a loop that cannot afford to ask `of` for each job."""

    def of(self, task: Task) -> Call:
        """Return the call of a job type's function."""
        call = self.known.get(task)
        if call is None:
            call = self._plain(task) if task.context is None else self._with_context(task, task.context)
            self.known[task] = call = call if task.is_async else self._waiting(task, call)
        return call

    def _plain(self, task: Task) -> Call:
        function, load = task.function, self._load
        return lambda claim, _connection, _holder: function(**load(claim.data))

    def _with_context(self, task: Task, name: str) -> Call:
        function, load, context = task.function, self._load, self._contexts(task)

        def call(claim: Claim, connection: Any, holder: Holder) -> Any:
            arguments = load(claim.data)
            arguments[name] = holder.context = context(claim, connection)
            return function(**arguments)

        return call

    def _waiting(self, task: Task, call: Call) -> Call:
        """Return the call of a `def`, which may return something that is still to be awaited."""
        wait = self._wait

        def called(claim: Claim, connection: Any, holder: Holder) -> Any:
            result = call(claim, connection, holder)
            return result if is_final(result) else wait(settled(result, task), holder)

        return called
