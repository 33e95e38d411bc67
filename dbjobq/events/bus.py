"""Events, and how they reach the log and all who subscribe.

An event stands once in the table (names.py), and code emits it by its constant from there: `emit(JOB_RETRY, claim,
error=…, delay=…)`. Its log line is the event's name, with its fields in `extra`, never a job's arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from dbjobq.events.loggers import Named, job_fields

__all__ = ["Event", "Subscriber", "emit", "subscribe", "unsubscribe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of thing that happens in a worker, a migration, or the command line."""

    name: str
    """The text of its log lines: a family and a word, such as `job.retry`."""
    level: int
    """The level of its log lines, one of `logging`'s."""
    says: str
    """When it happens, as a sentence for people."""
    do: str
    """Advice on what to do about it."""
    fields: tuple[str, ...] = ()
    """The names of its fields, beside the job's; `FIELDS` says what each one means."""
    optional: frozenset[str] = frozenset()
    """The fields that some of its lines lack."""
    job: Literal["no", "yes", "perhaps"] = "no"
    """Whether its lines carry the id, type, queue and attempt of one job."""
    logger: str = "dbjobq.worker"
    quiet: int | None = None
    """A lower level that some of its lines have; None if all have the same."""
    quiet_when: str = ""
    """When a line has the lower level."""
    batched: bool = False
    """Hooks are told of it in batches, and not one by one."""


Subscriber = Callable[[Event, int, Mapping[str, Any], BaseException | None], None]
"""Called with an event, the level of this time, its fields, and the exception that belongs to it, if there is one."""

_subscribers: tuple[Subscriber, ...] = ()
_loggers: Final[dict[str, logging.Logger]] = {}


def subscribe(subscriber: Subscriber) -> None:
    """Call a function for every event, on the thread where it happens: the function must be quick, and not raise."""
    global _subscribers  # noqa: PLW0603 - read without a lock, replaced as a whole
    _subscribers = (*_subscribers, subscriber)


def unsubscribe(subscriber: Subscriber) -> None:
    """Call a function for no more events."""
    global _subscribers  # noqa: PLW0603
    _subscribers = tuple(other for other in _subscribers if other is not subscriber)


def emit(
    event: Event,
    job: Named | None = None,
    /,
    *,
    quietly: bool = False,
    exception: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log an event, and call the subscribers.

    A logger that is disabled is enabled again: `logging.config`, by its defaults, disables all existing loggers, and a
    job may call it while the worker runs. To silence a logger, give it a level.

    Args:
        event: The event, from the table.
        job: The job that the event is about, if it is about one.
        quietly: Whether to log at the event's lower level.
        exception: An exception to log with its traceback.
        fields: The event's fields; those that are None are left out.
    """
    level = event.level if event.quiet is None or not quietly else event.quiet
    logger = _loggers.get(event.logger) or _loggers.setdefault(event.logger, logging.getLogger(event.logger))
    if logger.disabled:
        logger.disabled = False
    heard = logger.isEnabledFor(level)
    if not (heard or _subscribers):
        return
    said = {name: value for name, value in fields.items() if value is not None}
    if job is not None:
        said = job_fields(job, **said)
    if heard:
        logger.log(level, event.name, extra=said, exc_info=exception, stacklevel=2)
    for subscriber in _subscribers:
        subscriber(event, level, said, exception)
