"""What `options(…)` returns: a queue to which every argument of `enqueue` is the job's own, typed as the function's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, Unpack, overload

from dbjobq.ids import JobIds
from dbjobq.jobs.context import JobContext
from dbjobq.queue.base import Calls, Function
from dbjobq.queue.options import EnqueueOptions

__all__ = ["AsyncWithOptions", "WithOptions"]

P = ParamSpec("P")


class WithOptions(Calls):
    """A queue with options (`JobQueue.options`): here every argument is the job's own, typed as the function's."""

    def options(self, **options: Unpack[EnqueueOptions]) -> WithOptions:
        """Return the same with more options, or others."""
        return WithOptions(self.storage, self._options.updated(options))

    @overload
    def enqueue(
        self, function: Callable[Concatenate[JobContext, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> str: ...
    @overload
    def enqueue(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> str: ...
    @overload
    def enqueue(self, function: str, /, **kwargs: Any) -> str: ...
    def enqueue(self, function: Function | str, /, *args: Any, **kwargs: Any) -> str:
        """Write a job; see `JobQueue.enqueue`. Positional arguments are bound to their names."""
        return self._enqueue(function, self._options, args, kwargs).run()

    def enqueue_many(self, function: Function | str, jobs: Iterable[Mapping[str, Any]], /) -> JobIds:
        """Write many jobs; see `JobQueue.enqueue_many`."""
        return self._enqueue_many(function, self._options, jobs).run()


class AsyncWithOptions(Calls):
    """An async queue with options: `WithOptions`, awaited."""

    def options(self, **options: Unpack[EnqueueOptions]) -> AsyncWithOptions:
        """Return the same with more options, or others."""
        return AsyncWithOptions(self.storage, self._options.updated(options))

    @overload
    async def enqueue(
        self, function: Callable[Concatenate[JobContext, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> str: ...
    @overload
    async def enqueue(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> str: ...
    @overload
    async def enqueue(self, function: str, /, **kwargs: Any) -> str: ...
    async def enqueue(self, function: Function | str, /, *args: Any, **kwargs: Any) -> str:
        """See `WithOptions.enqueue`."""
        return await self._enqueue(function, self._options, args, kwargs).arun()

    async def enqueue_many(self, function: Function | str, jobs: Iterable[Mapping[str, Any]], /) -> JobIds:
        """See `WithOptions.enqueue_many`."""
        return await self._enqueue_many(function, self._options, jobs).arun()
