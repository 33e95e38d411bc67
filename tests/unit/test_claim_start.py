"""Near and full claims take turns."""

from __future__ import annotations

from dbjobq.storage.postgres.worker.claim_start import (
    COMMIT_DELAY,
    COST_PER_JOB,
    EXPENSIVE_CLAIM,
    LONGEST_PAUSE,
    MAX_REMEMBERED,
    MEASURE_EVERY,
    NEAR_FOR,
    PAUSE_FACTOR,
    ClaimStart,
    StartPosition,
)

Q, P = 1, 5
LAST = {(Q, P): 1_000_000_000}


def expensive(start: ClaimStart, now: float, seconds: float = 0.05) -> None:
    """Have full claims be measured as expensive."""
    for _ in range(2):
        start.claimed(now, LAST, near=False, full_batch=False)
        start.measured(now, seconds, 0)


def test_the_first_claim_is_a_full_one() -> None:
    assert ClaimStart().near_starts(10.0, [Q], promoting=False) is None


def test_after_a_full_batch_near_claims_do_for_a_while() -> None:
    start = ClaimStart()
    assert not start.claimed(10.0, LAST, near=False, full_batch=True)
    assert start.near_starts(10.0 + NEAR_FOR * 0.9, [Q], promoting=False) == [StartPosition(Q, P, LAST[Q, P])]
    assert start.near_starts(10.0 + NEAR_FOR, [Q], promoting=False) is None


def test_after_a_batch_that_was_not_full_the_next_claim_is_a_full_one() -> None:
    start = ClaimStart()
    assert not start.claimed(10.0, LAST, near=False, full_batch=False)
    assert start.near_starts(10.0, [Q], promoting=False) is None


def test_a_near_claim_that_finds_too_little_is_followed_by_a_full_one_at_once() -> None:
    start = ClaimStart()
    start.claimed(10.0, LAST, near=False, full_batch=True)
    assert start.claimed(10.1, {}, near=True, full_batch=False)
    assert start.full_claim_in(10.1) is None
    assert not start.claimed(10.1, {}, near=False, full_batch=False)


def test_near_claims_go_through_the_queues_in_their_order_and_the_higher_priorities_first() -> None:
    start = ClaimStart()
    start.claimed(10.0, {(1, 5): 1, (2, 5): 2, (2, 9): 3, (3, 1): 4}, near=False, full_batch=True)
    assert start.near_starts(10.1, [2, 1], promoting=False) == [
        StartPosition(2, 9, 3),
        StartPosition(2, 5, 2),
        StartPosition(1, 5, 1),
    ]
    assert start.near_starts(10.1, [7], promoting=False) is None


def test_where_full_claims_are_expensive_they_get_a_share_of_the_time() -> None:
    start = ClaimStart()
    expensive(start, 10.0)
    paused = 10.0 + 0.05 * PAUSE_FACTOR
    assert start.near_starts(paused - 0.01, [Q], promoting=False) is not None
    assert not start.claimed(paused - 0.01, {}, near=True, full_batch=False)  # none at once
    assert 0.0 < (start.full_claim_in(paused - 0.01) or 0.0) < 0.02  # but then
    assert start.near_starts(paused, [Q], promoting=False) is None
    start.claimed(paused, {}, near=False, full_batch=False)
    assert start.full_claim_in(paused) is None
    assert start.near_starts(paused + 0.01, [Q], promoting=False) is not None


def test_no_pause_is_longer_than_the_longest() -> None:
    start = ClaimStart()
    expensive(start, 10.0, 60.0)
    assert start.near_starts(10.0 + LONGEST_PAUSE, [Q], promoting=False) is None


def test_one_slow_claim_is_not_taken_for_expensive_nor_is_one_that_moved_many_jobs() -> None:
    start = ClaimStart()
    for seconds, jobs in [
        (0.05, 0),
        (EXPENSIVE_CLAIM / 2, 0),
        (0.05, 0),
        (1000 * COST_PER_JOB, 1000),
        (1000 * COST_PER_JOB, 1000),
    ]:
        start.claimed(10.0, LAST, near=False, full_batch=False)
        start.measured(10.0, seconds, jobs)
        assert start.near_starts(10.0, [Q], promoting=False) is None


def test_full_claims_are_measured_now_and_then_and_always_while_they_are_expensive() -> None:
    start = ClaimStart()
    for _ in range(MEASURE_EVERY):
        assert not start.wants_measure()
        start.claimed(10.0, LAST, near=False, full_batch=False)
    assert start.wants_measure()
    start.measured(10.0, 0.0001, 0)
    assert not start.wants_measure()
    expensive(start, 10.0)
    assert start.wants_measure()
    start.measured(20.0, 0.0001, 0)
    assert not start.wants_measure()
    assert start.near_starts(20.0, [Q], promoting=False) is None


def test_a_claim_that_left_nothing_moves_the_places_on_but_for_what_may_come_late() -> None:
    start = ClaimStart()
    expensive(start, 10.0)
    start.claimed(10.1, {}, near=True, full_batch=False)
    start.nothing_left(10.3, 5000.0)  # by the server's clock it began at 4999.8
    assert start.near_starts(10.3, [Q], promoting=False) == [
        StartPosition(Q, P, int((5000.0 - 0.2 - COMMIT_DELAY) * 1e6))
    ]


def test_a_full_batch_leaves_the_places_where_they_are() -> None:
    start = ClaimStart()
    start.claimed(10.0, LAST, near=False, full_batch=True)
    start.nothing_left(10.1, 5000.0)
    assert start.near_starts(10.1, [Q], promoting=False) == [StartPosition(Q, P, LAST[Q, P])]


def test_what_is_scheduled_is_looked_at_from_where_nothing_is_due_before() -> None:
    start = ClaimStart()
    assert start.none_due_before(10.0) is None
    start.scheduled_seen(5000.0, 7.0)
    assert start.none_due_before(10.0) is None  # full claims are cheap
    expensive(start, 10.0)
    assert start.none_due_before(10.1) == 5000.0 - COMMIT_DELAY
    start.scheduled_seen(5001.0, -3.0)  # due, but not promoted yet
    assert start.none_due_before(10.1) == 4998.0 - COMMIT_DELAY
    start.scheduled_seen(5002.0, None)
    assert start.none_due_before(10.1) == 5002.0 - COMMIT_DELAY
    assert start.none_due_before(10.0 + LONGEST_PAUSE) is None


def test_a_claim_that_promotes_begins_no_later_than_what_is_promoted() -> None:
    start = ClaimStart()
    start.claimed(10.0, LAST, near=False, full_batch=True)
    assert start.near_starts(10.1, [Q], promoting=True) is None  # full claims are cheap
    expensive(start, 10.0)
    assert start.near_starts(10.1, [Q], promoting=True) is None  # nothing is known of what is scheduled
    start.scheduled_seen(501.0, None)
    assert start.near_starts(10.1, [Q], promoting=True) == [StartPosition(Q, P, 500_000_000)]


def test_too_many_places_are_forgotten() -> None:
    start = ClaimStart()
    start.claimed(10.0, dict.fromkeys([(Q, n) for n in range(MAX_REMEMBERED + 1)], 1), near=False, full_batch=True)
    assert start.near_starts(10.1, [Q], promoting=False) is None
