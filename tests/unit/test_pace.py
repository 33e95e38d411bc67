"""How many jobs to claim, and how many of them to hold, for jobs of every duration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbjobq.runtime.pace import BATCH, CAREFUL, LONG_TO_PREFETCH, PREFETCH, UNSTARTED, Pace
from dbjobq.storage.values import Claim


def claim(type_: str = "f", *, suspect: bool = False, attempts: int = 0, max_retries: int = 3) -> Claim:
    return Claim("i", "1", attempts, type_, "{}", "default", 5, max_retries, None, False, 0.0, None, 0.0, suspect)


def paced(slots: int = 1, **types: float) -> Pace:
    """Knows these types; the last is what has run of late."""
    pace = Pace(slots)
    for type_, seconds in types.items():
        pace.took(type_, 100, 100 * seconds)
    return pace


def test_nothing_is_claimed_ahead_while_nothing_is_known() -> None:
    assert Pace(1).ahead([], []) == 0


def test_short_jobs_come_in_hundreds_and_long_ones_one_by_one() -> None:
    assert paced(f=10e-6).ahead([], []) == BATCH
    assert paced(f=0.001).ahead([], []) == pytest.approx(PREFETCH / 0.001, abs=1)
    assert paced(f=1.0).ahead([], []) == 0
    assert paced(slots=10, f=0.001).ahead([], []) == pytest.approx(10 * PREFETCH / 0.001, abs=1)


def test_more_is_claimed_when_half_of_it_is_used_up() -> None:
    pace = paced(f=0.001)  # 30 of them are worth holding
    assert pace.ahead(["f"] * 20, ["f"]) == 0
    assert pace.ahead(["f"] * 14, ["f"]) == pytest.approx(16, abs=1)


def test_a_batch_is_claimed_while_another_waits_and_no_third() -> None:
    pace = paced(f=10e-6)
    assert pace.ahead(["f"] * BATCH, ["f"]) == BATCH
    assert pace.ahead(["f"] * (BATCH + 1), ["f"]) == 0


def test_nothing_is_claimed_to_wait_behind_what_is_known_to_be_long() -> None:
    pace = paced(slots=2, long=1.0, f=0.001)
    assert pace.ahead([], ["long", "long"]) == 0
    assert pace.ahead([], ["long", "f"]) == pytest.approx(PREFETCH / 0.001, abs=1)
    assert pace.ahead(["long"], ["f"]) == 0


def test_a_type_is_known_by_its_own_jobs() -> None:
    pace = paced(long=1.0, f=0.001)
    assert (pace.of("long"), pace.of("f"), pace.of("new")) == pytest.approx((1.0, 0.001, 0.001))


def test_what_would_wait_behind_a_long_job_goes_back() -> None:
    pace = paced(long=1.0, f=0.001)
    mixed = [claim()] * 10 + [claim("long")] + [claim()] * 10
    assert pace.hold(1, [], mixed) == 11
    assert pace.hold(1, ["long"], mixed) == 1
    assert pace.hold(0, ["long"], mixed) == 0
    assert pace.hold(1, [], [claim()] * 30) == 30


def test_for_each_free_slot_a_job_is_held_however_long_they_take() -> None:
    assert paced(slots=5, long=1.0).hold(5, [], [claim("long")] * 5) == 5
    assert paced(slots=5, long=1.0).hold(3, [], [claim("long")] * 5) == 3


@pytest.mark.parametrize(
    "fragile", [claim(suspect=True), claim(max_retries=0), claim(attempts=3)], ids=["suspect", "once", "last"]
)
def test_what_must_not_wait_goes_back_and_nothing_waits_behind_it(fragile: Claim) -> None:
    """A worker that dies is charged for with an attempt of all that it holds."""
    assert paced(f=10e-6).hold(1, [], [*[claim()] * 10, fragile, *[claim()] * 10]) == 10
    assert paced(f=10e-6).hold(1, [], [fragile, *[claim()] * 10]) == 1
    assert paced(slots=4, f=10e-6).hold(2, [], [claim(), fragile, claim()]) == 2
    assert paced(slots=4, f=10e-6).hold(4, [], [fragile] * 6) == 4


def test_after_what_must_not_wait_a_few_claims_are_as_small_as_can_be() -> None:
    pace = paced(f=10e-6)
    pace.hold(1, [], [claim(suspect=True)])
    for _ in range(CAREFUL):
        assert pace.ahead([], []) == 0
        pace.hold(1, [], [claim()])
    assert pace.ahead([], []) == BATCH


def test_a_job_that_takes_longer_than_its_like_stops_claiming_ahead_until_others_are_short_again() -> None:
    pace = paced(f=10e-6)
    pace.stuck()
    assert pace.ahead([], []) == 0
    pace.took("f", 20, 20 * 10e-6)
    assert pace.ahead([], []) > 0


@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 3), min_size=1),
    st.integers(1, 50),
    st.data(),
)
def test_what_is_held_can_start_soon_or_has_a_slot(types: dict[str, float], slots: int, data: st.DataObject) -> None:
    pace = paced(slots, **types)
    kinds = st.sampled_from("abc")
    waiting = data.draw(st.lists(kinds, max_size=20))
    running = data.draw(st.lists(kinds, max_size=slots))
    ahead = pace.ahead(waiting, running)
    assert 0 <= ahead <= BATCH
    if ahead:
        assert pace.mean < LONG_TO_PREFETCH
        assert ahead * pace.mean <= PREFETCH * slots + 1e-6
    claims = [claim(kind) for kind in data.draw(st.lists(kinds, max_size=60))]
    free = data.draw(st.integers(0, slots))
    held = pace.hold(free, waiting, claims)
    assert min(free, len(claims)) <= held <= len(claims)
    if held > free:
        before = sum(pace.of(kind) for kind in [*waiting, *(c.type for c in claims[: held - 1])])
        assert before < UNSTARTED * slots + 1e-9  # sums in another order
