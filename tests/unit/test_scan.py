"""Near and whole looks take turns."""

from __future__ import annotations

from dbjobq.storage.postgres.worker.claim_start import (
    A_JOB,
    DEAR,
    HINT_LIFE,
    LATE,
    LONGEST,
    MOST,
    SHARE,
    UNMEASURED,
    Scan,
    Start,
)

Q, P = 1, 5
PLACE = {(Q, P): 1_000_000_000}


def dear(scan: Scan, now: float, seconds: float = 0.05) -> None:
    """Have whole looks be measured as dear."""
    for _ in range(2):
        scan.looked(now, PLACE, near=False, full=False)
        scan.measured(now, seconds, 0)


def test_the_first_look_is_a_whole_one() -> None:
    assert Scan().near(10.0, [Q], promoting=False) is None


def test_after_a_full_batch_near_looks_do_for_a_while() -> None:
    scan = Scan()
    assert not scan.looked(10.0, PLACE, near=False, full=True)
    assert scan.near(10.0 + HINT_LIFE * 0.9, [Q], promoting=False) == [Start(Q, P, PLACE[Q, P])]
    assert scan.near(10.0 + HINT_LIFE, [Q], promoting=False) is None


def test_after_a_batch_that_was_not_full_the_next_look_is_a_whole_one() -> None:
    scan = Scan()
    assert not scan.looked(10.0, PLACE, near=False, full=False)
    assert scan.near(10.0, [Q], promoting=False) is None


def test_a_near_look_that_finds_too_little_is_followed_by_a_whole_one_at_once() -> None:
    scan = Scan()
    scan.looked(10.0, PLACE, near=False, full=True)
    assert scan.looked(10.1, {}, near=True, full=False)
    assert scan.whole_in(10.1) is None
    assert not scan.looked(10.1, {}, near=False, full=False)


def test_near_looks_go_through_the_queues_in_their_order_and_the_higher_priorities_first() -> None:
    scan = Scan()
    scan.looked(10.0, {(1, 5): 1, (2, 5): 2, (2, 9): 3, (3, 1): 4}, near=False, full=True)
    assert scan.near(10.1, [2, 1], promoting=False) == [Start(2, 9, 3), Start(2, 5, 2), Start(1, 5, 1)]
    assert scan.near(10.1, [7], promoting=False) is None


def test_where_whole_looks_are_dear_they_get_a_share_of_the_time() -> None:
    scan = Scan()
    dear(scan, 10.0)
    rested = 10.0 + 0.05 * SHARE
    assert scan.near(rested - 0.01, [Q], promoting=False) is not None
    assert not scan.looked(rested - 0.01, {}, near=True, full=False)  # none at once
    assert 0.0 < (scan.whole_in(rested - 0.01) or 0.0) < 0.02  # but then
    assert scan.near(rested, [Q], promoting=False) is None
    scan.looked(rested, {}, near=False, full=False)
    assert scan.whole_in(rested) is None
    assert scan.near(rested + 0.01, [Q], promoting=False) is not None


def test_no_rest_is_longer_than_the_longest() -> None:
    scan = Scan()
    dear(scan, 10.0, 60.0)
    assert scan.near(10.0 + LONGEST, [Q], promoting=False) is None


def test_one_slow_look_is_not_taken_for_dear_nor_is_one_that_moved_many_jobs() -> None:
    scan = Scan()
    for seconds, jobs in [(0.05, 0), (DEAR / 2, 0), (0.05, 0), (1000 * A_JOB, 1000), (1000 * A_JOB, 1000)]:
        scan.looked(10.0, PLACE, near=False, full=False)
        scan.measured(10.0, seconds, jobs)
        assert scan.near(10.0, [Q], promoting=False) is None


def test_looks_are_measured_now_and_then_and_always_while_they_are_dear() -> None:
    scan = Scan()
    for _ in range(UNMEASURED):
        assert not scan.wants_measure()
        scan.looked(10.0, PLACE, near=False, full=False)
    assert scan.wants_measure()
    scan.measured(10.0, 0.0001, 0)
    assert not scan.wants_measure()
    dear(scan, 10.0)
    assert scan.wants_measure()
    scan.measured(20.0, 0.0001, 0)
    assert not scan.wants_measure()
    assert scan.near(20.0, [Q], promoting=False) is None


def test_a_look_that_left_nothing_moves_the_places_on_but_for_what_may_come_late() -> None:
    scan = Scan()
    dear(scan, 10.0)
    scan.looked(10.1, {}, near=True, full=False)
    scan.emptied(10.3, 5000.0)  # by the server's clock it began at 4999.8
    assert scan.near(10.3, [Q], promoting=False) == [Start(Q, P, int((5000.0 - 0.2 - LATE) * 1e6))]


def test_a_full_look_leaves_the_places_where_they_are() -> None:
    scan = Scan()
    scan.looked(10.0, PLACE, near=False, full=True)
    scan.emptied(10.1, 5000.0)
    assert scan.near(10.1, [Q], promoting=False) == [Start(Q, P, PLACE[Q, P])]


def test_what_is_scheduled_is_looked_at_from_where_nothing_is_due_before() -> None:
    scan = Scan()
    assert scan.since(10.0) is None
    scan.scheduled(5000.0, 7.0)
    assert scan.since(10.0) is None  # whole looks are cheap
    dear(scan, 10.0)
    assert scan.since(10.1) == 5000.0 - LATE
    scan.scheduled(5001.0, -3.0)  # due, but not promoted yet
    assert scan.since(10.1) == 4998.0 - LATE
    scan.scheduled(5002.0, None)
    assert scan.since(10.1) == 5002.0 - LATE
    assert scan.since(10.0 + LONGEST) is None


def test_a_look_that_promotes_begins_no_later_than_what_is_promoted() -> None:
    scan = Scan()
    scan.looked(10.0, PLACE, near=False, full=True)
    assert scan.near(10.1, [Q], promoting=True) is None  # whole looks are cheap
    dear(scan, 10.0)
    assert scan.near(10.1, [Q], promoting=True) is None  # nothing is known of what is scheduled
    scan.scheduled(501.0, None)
    assert scan.near(10.1, [Q], promoting=True) == [Start(Q, P, 500_000_000)]


def test_too_many_places_are_forgotten() -> None:
    scan = Scan()
    scan.looked(10.0, dict.fromkeys([(Q, n) for n in range(MOST + 1)], 1), near=False, full=True)
    assert scan.near(10.1, [Q], promoting=False) is None
