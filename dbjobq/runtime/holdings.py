"""Tells the threads beside a worker's event loop what the worker holds: jobs that run, and results not written yet."""

from __future__ import annotations

from dbjobq.runtime.executor import Executor
from dbjobq.runtime.poller import Poller
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Holdings"]


class Holdings:
    """A view, from any thread, of the two that hold claims and outcomes.

    Args:
        executor: Holds what waits and what runs, and outcomes that the poller has not taken yet.
        poller: Holds the outcomes that it has taken, until the database has them.
    """

    def __init__(self, executor: Executor, poller: Poller) -> None:
        self.executor, self._poller = executor, poller

    def running(self) -> list[Claim]:
        """Return the jobs that run."""
        return self.executor.slots.running()

    @property
    def any(self) -> bool:
        """Whether anything was claimed whose outcome is not written, as far as is known."""
        return self.executor.buffer.holding or bool(self._poller.unsent())

    def all(self) -> list[Claim]:
        """Return all that was claimed and whose outcome is not written, as far as is known; perhaps a few more."""
        return [*self.executor.held(), *(outcome.claim for outcome in self._poller.unsent())]

    def ended(self) -> dict[Claim, Outcome]:
        """Return how those jobs ended whose outcomes are not written, as far as is known."""
        return {outcome.claim: outcome for outcome in [*self.executor.unwritten(), *self._poller.unsent()]}

    def stop_by(self) -> float | None:
        """Return when what runs is to be handed back; None if the worker is not stopping."""
        return self._poller.stop_by
