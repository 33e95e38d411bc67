"""What becomes of an event loop that may be blocked: the table, over the whole product of its states and events."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from dbjobq.runtime.liveness.states import (
    LAST_TAKE_OVER,
    LOOP_EVENTS,
    MOVES,
    STANCES,
    STATES,
    Event,
    Fate,
    State,
    after,
)
from dbjobq.runtime.trust import now

BLOCKED: tuple[State, ...] = ("blocked", "replaced", "left", "giving up")
"""The loop does not come round, and something may be held there."""
HAS_ANOTHER: tuple[State, ...] = ("replaced", "left", "returned")
"""Another loop works in its place."""

EXPECTED: dict[State, tuple[State, ...]] = {
    #             answered    silent       replacement  time up      taken over   emptied      too late
    "round":     ("round",    "blocked",   "round",     "round",     "round",     "round",     "round"),
    "blocked":   ("round",    "blocked",   "replaced",  "giving up", "blocked",   "blocked",   "over"),
    "replaced":  ("returned", "replaced",  "replaced",  "giving up", "left",      "replaced",  "over"),
    "left":      ("returned", "left",      "left",      "giving up", "left",      "over",      "over"),
    "returned":  ("returned", "replaced",  "returned",  "returned",  "returned",  "returned",  "returned"),
    "giving up": ("round",    "giving up", "giving up", "giving up", "over",      "giving up", "over"),
    "over":      ("over",     "over",      "over",      "over",      "over",      "over",      "over"),
}  # fmt: skip


@pytest.mark.parametrize(("state", "event"), list(product(STATES, LOOP_EVENTS)))
def test_each_event_leads_from_each_state_to_the_one_that_is_meant(state: State, event: Event) -> None:
    assert after(state, event) == EXPECTED[state][LOOP_EVENTS.index(event)]


def test_the_table_lists_nothing_that_changes_nothing() -> None:
    assert all(state != follows for (state, _), follows in MOVES.items())


def reached(start: State, events: tuple[Event, ...]) -> set[State]:
    """All states to which any number of these events leads."""
    found: set[State] = {start}
    left: list[State] = [start]
    while left:
        state = left.pop()
        for event in events:
            if (follows := after(state, event)) not in found:
                found.add(follows)
                left.append(follows)
    return found


def test_every_state_is_reached_and_from_every_one_the_end_is() -> None:
    assert reached("round", LOOP_EVENTS) == set(STATES)
    assert all("over" in reached(state, LOOP_EVENTS) for state in STATES)


def test_a_loop_is_replaced_once_unless_the_worker_stops() -> None:
    """A second replacement would run beside the first."""
    lasting: tuple[Event, ...] = tuple(event for event in LOOP_EVENTS if event not in {"time up", "too late"})
    for state in HAS_ANOTHER:
        assert reached(state, lasting) <= {*HAS_ANOTHER, "over"}
        assert after(state, "replacement") == state


def test_a_loop_that_answers_is_never_over_and_one_that_is_silent_never_comes_round() -> None:
    for state in STATES:
        if state != "over":
            assert after(state, "answered") in {"round", "returned"}
        assert after(state, "silent") in {*BLOCKED, "over"}


def test_what_is_written_follows_from_the_state_alone() -> None:
    """Nothing while the loop comes round or nothing is held; connections are cut once for each time it is left."""
    assert set(STANCES) == set(STATES)
    for state, stance in STANCES.items():
        assert (stance.ends != "nothing") == (state in BLOCKED)
        assert stance.takes_over == (after(state, "taken over") != state)
    assert [state for state, stance in STANCES.items() if not stance.keeps] == ["giving up"]


@pytest.mark.parametrize("state", STATES)
def test_a_blocked_loop_is_over_when_the_time_for_handing_back_is_though_its_writer_is_stuck(state: State) -> None:
    fate = Fate(lambda: now() - LAST_TAKE_OVER)
    fate.state = state
    assert fate.over() == (state in {*BLOCKED, "over"})
    early = Fate(lambda: now() + 60)
    early.state = state
    assert early.over() == (state == "over")


def test_the_usual_way_of_a_loop_that_is_lost() -> None:
    states: list[State] = ["round", "blocked", "replaced", "left", "over"]
    events: list[Event] = ["silent", "replacement", "taken over", "emptied"]
    for (state, follows), event in zip(pairwise(states), events, strict=True):
        assert after(state, event) == follows
