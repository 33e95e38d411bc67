"""How jobs end whose event loop is blocked, and cannot say it itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbjobq.runtime.liveness.instead import blocking, instead
from dbjobq.runtime.slot import Whereabouts
from dbjobq.storage.values import Claim, Outcome

BLOCKS, BESIDE, THREAD, LATE = (
    Claim(f"job {n}", str(n), 0, "test.instead", "{}", "default", 0, 3, 0.5, 0, 0.0, None, 0.0) for n in range(4)
)


def places() -> tuple[list[Whereabouts], Any]:
    """Two jobs on the loop and one on a thread; and the task whose turn it is."""
    turn: Any = object()
    other: Any = object()
    return [Whereabouts(BLOCKS, turn, None), Whereabouts(BESIDE, other, None), Whereabouts(THREAD, None, 7)], turn


def events(outcomes: dict[Any, Outcome]) -> dict[Any, str]:
    return {claim: outcome.event for claim, outcome in outcomes.items()}


def test_the_job_whose_turn_it_is_blocks_the_loop_and_all_may_where_it_is_the_turn_of_none() -> None:
    there, turn = places()
    assert blocking(there, turn) == [BLOCKS]
    assert blocking(there, None) == [BLOCKS, BESIDE]


@pytest.mark.parametrize("known", [True, False])
def test_beside_what_blocks_the_loop_jobs_go_back_and_are_charged_where_it_cannot_be_told(known: bool) -> None:
    there, turn = places()
    found = events(instead("beside", there, turn if known else None, [], {}))
    assert found == ({BESIDE: "release"} if known else {BLOCKS: "retry", BESIDE: "retry"})


def test_one_outcome_is_written_for_each_job_and_that_which_has_ended_counts() -> None:
    there, turn = places()
    done = Outcome(THREAD, "complete")
    found = instead("beside", there, turn, [BESIDE], {THREAD: done})
    assert events(found) == {BESIDE: "retry", THREAD: "complete"}
    assert events(instead("all", there, turn, [], {THREAD: done})) == {
        BLOCKS: "release",
        BESIDE: "release",
        THREAD: "complete",
    }


def test_while_the_loop_may_come_back_jobs_end_at_their_timeouts_alone() -> None:
    there, turn = places()
    assert events(instead("overdue", there, turn, [LATE], {THREAD: Outcome(THREAD, "complete")})) == {LATE: "retry"}
    assert instead("nothing", there, turn, [LATE], {}) == {}


def test_a_task_is_a_place_on_the_loop() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert blocking([Whereabouts(BLOCKS, task, None)], task) == [BLOCKS]

    asyncio.run(main())
