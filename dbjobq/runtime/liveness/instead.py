"""Decides how jobs end whose event loop is blocked, and cannot say it itself: pure functions of what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from dbjobq.attempt.outcome import unfinished
from dbjobq.runtime.liveness.long_jobs import failed_on_loop, overrun
from dbjobq.runtime.slot import Whereabouts
from dbjobq.storage.values import Claim, Outcome

__all__ = ["blocking", "instead"]

UNTOLD: Final = "it stood on an event loop that did not come round any more"


def blocking(places: list[Whereabouts], turn: asyncio.Task[Any] | None) -> list[Claim]:
    """Return the job whose turn it is on the loop; all that run there, if a task of none of them has it."""
    on_loop = [place for place in places if place.task is not None]
    return [place.claim for place in on_loop if place.task is turn] or [place.claim for place in on_loop]


def instead(
    ends: Literal["nothing", "overdue", "beside", "all"],
    places: list[Whereabouts],
    turn: asyncio.Task[Any] | None,
    overdue: Iterable[Claim],
    ended: Mapping[Claim, Outcome],
) -> dict[Claim, Outcome]:
    """Return the outcomes that are to be written for a blocked loop.

    Args:
        ends: Which jobs (`states.Stance.ends`).
        places: What runs, and where.
        turn: The task whose turn it is on the loop.
        overdue: The jobs that are past their timeouts.
        ended: The outcomes that are there and may not be written. They count more than anything else.
    """
    outcomes: dict[Claim, Outcome] = {}
    if ends == "all":
        outcomes |= {place.claim: unfinished(place.claim) for place in places}
    if ends == "beside":
        outcomes |= _beside(places, turn)
    if ends in {"overdue", "beside"}:
        outcomes |= {claim: overrun(claim) for claim in overdue}
    if ends in {"beside", "all"}:
        outcomes |= ended
    return outcomes


def _beside(places: list[Whereabouts], turn: asyncio.Task[Any] | None) -> dict[Claim, Outcome]:
    """Return what becomes of the other jobs on a loop that is left to one: they go back, free of charge.

    Where it cannot be told which one that is, all are charged: it would take the next loop with it.
    """
    on_loop = [place for place in places if place.task is not None]
    known = any(place.task is turn for place in on_loop)
    others = [place.claim for place in on_loop if place.task is not turn]
    return {claim: unfinished(claim) if known else failed_on_loop(claim, UNTOLD) for claim in others}
