"""Turns a claim into the call of its function: reads the arguments, makes the context, puts middleware around it.

The call is put together once for each job type, so a plain job costs one call more than its function: nothing is
decided anew for each job.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias

from dbjobq.attempt.middleware import surrounded
from dbjobq.attempt.settled import awaited, is_final, settled
from dbjobq.codec.json import load_arguments
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.middleware import Middleware, middleware_everywhere
from dbjobq.jobs.registry import JobType
from dbjobq.storage.values import Claim

__all__ = ["Call", "Caller", "Contexts", "Holder", "Load", "Wait"]


class Holder(Protocol):
    """The object that runs an attempt, and that tells the function of a cancellation through its context."""

    context: JobContext | None


Call: TypeAlias = Callable[[Claim, Any, Any], Any]
"""Calls a job's function, given the claim, the transaction's connection (or None) and the holder. Returns what the
function returns, which for an `async def` is its coroutine."""

Contexts: TypeAlias = Callable[[JobType], Callable[[Claim, Any], JobContext]]
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
        middleware: Returns the worker's own middleware, the outermost first. Asked when the first call is put together.
    """

    def __init__(
        self,
        contexts: Contexts,
        wait: Wait,
        load: Load = load_arguments,
        middleware: Callable[[], Sequence[Middleware]] = tuple,
    ) -> None:
        self._contexts, self._wait, self._load, self._middleware = contexts, wait, load, middleware
        self._made: tuple[Sequence[Middleware], dict[JobType, Call]] = (), {}
        """The calls put together so far, and the middleware of the process that they have around them."""

    def of(self, task: JobType) -> Call:
        """Return the call of a job type's function."""
        everywhere, made = self._made
        if everywhere is not middleware_everywhere():  # some was registered meanwhile
            self._made = everywhere, made = middleware_everywhere(), {}
        call = made.get(task)
        if call is None:
            layers = list(dict.fromkeys([*everywhere, *self._middleware(), *task.middleware]))
            made[task] = call = self._within(task, layers) if layers else self._bare(task)
        return call

    def _bare(self, task: JobType) -> Call:
        call = self._plain(task) if task.context is None else self._with_context(task, task.context)
        return call if task.is_async else self._waiting(task, call)

    def _within(self, task: JobType, layers: Sequence[Middleware]) -> Call:
        """Return a call with middleware around it, which is given the context that the function is given."""
        inner, context = self._plain(task), self._contexts(task)
        if task.context is not None:
            inner = self._with_given_context(task, task.context)
        complete = self._awaiting(task, inner) if task.is_async else self._waiting(task, inner)
        call = surrounded(complete, task, layers)

        def called(claim: Claim, connection: Any, holder: Holder) -> Any:
            holder.context = context(claim, connection)
            return call(claim, connection, holder)

        return called

    def _plain(self, task: JobType) -> Call:
        function, load = task.function, self._load
        return lambda claim, _connection, _holder: function(**load(claim.data))

    def _with_context(self, task: JobType, name: str) -> Call:
        function, load, context = task.function, self._load, self._contexts(task)

        def call(claim: Claim, connection: Any, holder: Holder) -> Any:
            arguments = load(claim.data)
            arguments[name] = holder.context = context(claim, connection)
            return function(**arguments)

        return call

    def _with_given_context(self, task: JobType, name: str) -> Call:
        function, load = task.function, self._load

        def call(claim: Claim, _connection: Any, holder: Holder) -> Any:
            return function(**load(claim.data) | {name: holder.context})

        return call

    @staticmethod
    def _awaiting(task: JobType, call: Call) -> Call:
        return lambda claim, connection, holder: awaited(call(claim, connection, holder), task)

    def _waiting(self, task: JobType, call: Call) -> Call:
        """Return the call of a `def`, which may return something that is still to be awaited."""
        wait = self._wait

        def called(claim: Claim, connection: Any, holder: Holder) -> Any:
            result = call(claim, connection, holder)
            return result if is_final(result) else wait(settled(result, task), holder)

        return called
