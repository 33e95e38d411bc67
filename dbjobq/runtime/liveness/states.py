"""The fate of an event loop that may be blocked, as a table of states and events (docs/decisions/0010).

    round ⇄ blocked → replaced → left → over
                 ↘      ↓  ↖ returned ↙
                   giving up → over

`stand_in.py` says which events happen, and does what a state asks for. The table decides nothing else: no time, no job
and no database is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from dbjobq.runtime.trust import now
from dbjobq.storage.values import Claim

__all__ = ["LOOP_EVENTS", "MOVES", "STANCES", "STATES", "Event", "Fate", "Stance", "State", "after"]

LAST_TAKE_OVER: Final = 5.0
"""Seconds for handing back what is held; then it is left to the lease, which is not renewed any more."""

State = Literal["round", "blocked", "replaced", "left", "returned", "giving up", "over"]
"""Where an event loop stands:

- round: the loop comes round;
- blocked: the loop does not come round, and may still do so;
- replaced: another loop has taken its place, and the database has not yet heard of it;
- left: the database has; what blocks the loop is all that is held, beside what runs on threads;
- returned: the loop comes round though another has taken its place: it ends when its jobs have;
- giving up: the loop is blocked, and the time for stopping is over;
- over: the loop is blocked, or was, and nothing is held there any more. For good.
"""
STATES: Final[tuple[State, ...]] = ("round", "blocked", "replaced", "left", "returned", "giving up", "over")

Event = Literal["answered", "silent", "replacement", "time up", "taken over", "emptied", "too late"]
"""Something that happens to an event loop:

- answered: the loop has given a sign of life;
- silent: the loop has not, and should have;
- replacement: another loop has started in its place;
- time up: the time for stopping is over;
- taken over: the database has cut the loop's connections, and has its results and what goes back;
- emptied: all that the loop held has ended, as far as the database is concerned;
- too late: the time for handing anything back is over, too.
"""
LOOP_EVENTS: Final[tuple[Event, ...]] = (
    "answered",
    "silent",
    "replacement",
    "time up",
    "taken over",
    "emptied",
    "too late",
)

MOVES: Final[Mapping[tuple[State, Event], State]] = {
    ("round", "silent"): "blocked",
    ("blocked", "answered"): "round",
    ("blocked", "replacement"): "replaced",
    ("blocked", "time up"): "giving up",
    ("replaced", "answered"): "returned",
    ("replaced", "taken over"): "left",
    ("replaced", "time up"): "giving up",
    ("left", "answered"): "returned",
    ("left", "emptied"): "over",
    ("left", "time up"): "giving up",
    ("returned", "silent"): "replaced",  # its connections are new: they are cut once more
    ("giving up", "answered"): "round",  # and hands back itself; a worker that stops is not replaced
    ("giving up", "taken over"): "over",
    ("blocked", "too late"): "over",
    ("replaced", "too late"): "over",
    ("left", "too late"): "over",
    ("giving up", "too late"): "over",
}
"""The states that follow. An event that is not listed for a state changes nothing there."""


class Stance(NamedTuple):
    """How jobs of a loop are ended for it while it is in some state. What it had not started always goes back."""

    ends: Literal["nothing", "overdue", "beside", "all"]
    """Which of the jobs that run end: those that are past their timeouts; those, and all that stand on the loop beside
    the one that blocks it; all."""
    takes_over: bool = False
    """Whether the loop's connections are cut, and all goes back that nobody knows of."""
    keeps: bool = True
    """Whether what is known to be held remains so then."""


STANCES: Final[Mapping[State, Stance]] = {
    "round": Stance("nothing"),
    "blocked": Stance("overdue"),
    "replaced": Stance("beside", takes_over=True),
    "left": Stance("beside"),
    "returned": Stance("nothing"),
    "giving up": Stance("all", takes_over=True, keeps=False),
    "over": Stance("nothing"),
}


def after(state: State, event: Event) -> State:
    """Return the state that follows a state when something happens."""
    return MOVES.get((state, event), state)


class Fate:
    """The state of one event loop, and the jobs whose fates are known though the loop does not know. For any thread.

    Args:
        stop_by: Tells when what runs is to be handed back; None if the worker is not stopping.
    """

    def __init__(self, stop_by: Callable[[], float | None]) -> None:
        self._stop_by, self._lock = stop_by, threading.Lock()
        self.state: State = "round"
        self.settled: set[Claim] = set()
        """Jobs that have ended, or are not this worker's any more."""

    def on(self, event: Event) -> bool:
        """Go on to the state that follows an event; tell whether that is another state."""
        with self._lock:
            before, self.state = self.state, after(self.state, event)
            return self.state != before

    @property
    def stance(self) -> Stance:
        """How the loop's jobs are ended for it at this moment."""
        return STANCES[self.state]

    def over(self) -> bool:
        """Tell whether nothing is held any more on a loop that is blocked, or its time for that is over.

        Whatever the thread that writes is waiting for: the lease of what cannot be handed back must not be renewed.
        """
        stop_by = self._stop_by()
        if stop_by is not None and now() >= stop_by + LAST_TAKE_OVER:
            self.on("too late")
        return self.state == "over"
