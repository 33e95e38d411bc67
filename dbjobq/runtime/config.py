"""The settings of one worker, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dbjobq.checks import check_integer, check_name, check_seconds
from dbjobq.jobs.middleware import Middleware, checked_middleware

__all__ = ["WorkerConfig"]

MAX_CONCURRENCY: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Settings of one worker, durations in seconds; `made` checks them."""

    poll_interval: float
    """Seconds of the first wait when the queue has run dry."""
    max_poll_interval: float
    """Seconds of the longest wait."""
    concurrency: int
    """How many jobs run at once."""
    queues: tuple[str, ...] | None
    """The queues to serve, in this order; None for all."""
    lease: float
    """Seconds within which the jobs of a dead worker run elsewhere."""
    shutdown_timeout: float
    """Seconds that `stop()` lets jobs finish before it hands them back."""
    stuck_after: float
    """Seconds after which a job without a timeout no longer counts against `concurrency`; infinity for never."""
    unknown_within: float
    """Seconds for which jobs of a type that this worker does not know are put off before they fail."""
    middleware: tuple[Middleware, ...]
    """Generator functions that run around each attempt of the worker, the outermost first."""
    imports: tuple[str, ...]
    """Modules whose functions may be run."""

    @classmethod
    def made(  # noqa: PLR0913 - the settings
        cls,
        *,
        poll_interval: float,
        max_poll_interval: float,
        concurrency: int,
        queues: Sequence[str] | str | None,
        lease: float,
        shutdown_timeout: float,
        stuck_after: float | None,
        unknown_within: float,
        middleware: Iterable[Middleware] | Middleware,
        imports: Iterable[str],
    ) -> WorkerConfig:
        """Return checked settings; a `max_poll_interval` below `poll_interval` is raised to it.

        Raises:
            TypeError: A setting has the wrong type. The message names it.
            ValueError: A setting is out of range. The message has its name, its value and the range.
        """
        poll = check_seconds(poll_interval, "poll_interval", above_zero=True)
        if check_seconds(lease, "lease") < 1:
            raise ValueError(f"lease={lease}: must be at least 1 second, or a heartbeat cannot keep it")
        stuck = float("inf") if stuck_after is None else check_seconds(stuck_after, "stuck_after", above_zero=True)
        served = (queues,) if isinstance(queues, str) else queues
        if served is not None and not served:
            raise ValueError("queues=[]: name at least one, or None for all")
        return cls(
            poll_interval=poll,
            max_poll_interval=max(poll, check_seconds(max_poll_interval, "max_poll_interval", above_zero=True)),
            concurrency=check_integer(concurrency, "concurrency", 1, MAX_CONCURRENCY),
            queues=None if served is None else tuple(dict.fromkeys(check_name(name, "queue") for name in served)),
            lease=lease,
            shutdown_timeout=check_seconds(shutdown_timeout, "shutdown_timeout"),
            stuck_after=stuck,
            unknown_within=check_seconds(unknown_within, "unknown_within"),
            middleware=checked_middleware(middleware, "Worker"),
            imports=(imports,) if isinstance(imports, str) else tuple(imports),
        )
