"""The queues that `options(…)` returns: `enqueue` takes the function's own arguments alone, with their types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, Unpack, overload

from dbjobq.ids import JobIds
from dbjobq.jobs.context import JobContext
from dbjobq.queue.base import Function, QueueBase
from dbjobq.queue.options import EnqueueOptions

__all__ = ["AsyncWithOptions", "WithOptions"]

P = ParamSpec("P")


class WithOptions(QueueBase):
    """A queue with options (`JobQueue.options`): `enqueue` takes the function's own arguments, with their types."""

    def options(self, **options: Unpack[EnqueueOptions]) -> WithOptions:
        """Return this queue with more options, or with other values for them."""
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
        """Enqueue a job; see `JobQueue.enqueue`. Positional arguments are stored by their names."""
        return self._enqueue(function, self._options, args, kwargs).run()

    def enqueue_many(self, function: Function | str, jobs: Iterable[Mapping[str, Any]], /) -> JobIds:
        """Enqueue many jobs; see `JobQueue.enqueue_many`."""
        return self._enqueue_many(function, self._options, jobs).run()


class AsyncWithOptions(QueueBase):
    """An async queue with options: `WithOptions`, awaited."""

    def options(self, **options: Unpack[EnqueueOptions]) -> AsyncWithOptions:
        """Return this queue with more options, or with other values for them."""
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
