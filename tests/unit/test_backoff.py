"""The waits of an idle worker, of one in a rush, and of one that reconnects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbjobq.runtime.backoff import PollBackoff, ReconnectBackoff, Rush


def test_waits_double_from_the_first_and_begin_again_after_work() -> None:
    waits = PollBackoff(1.0, 60.0)
    assert [waits.next() for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    waits.reset()
    assert [waits.next() for _ in range(4)] == [1, 2, 4, 8]


@given(st.floats(0, 1, exclude_max=True))
def test_attempts_to_connect_are_never_more_than_5_seconds_apart(chance: float) -> None:
    waits = ReconnectBackoff()
    found = [waits.next(chance) for _ in range(20)]
    assert 0.05 <= found[0] <= 0.1
    assert all(2.5 <= wait <= 5.0 for wait in found[7:])


@pytest.mark.parametrize(("rate", "rush"), [(100, False), (300, False), (1000, True), (50_000, True)])
def test_a_steady_stream_is_a_rush_or_it_is_not(rate: int, rush: bool) -> None:
    stream, now = Rush(), 0.0
    for _ in range(100):
        now += 0.01
        stream.found(now, rate // 100, full=False)
    assert stream.on(now) is rush


@given(st.integers(0, 5000), st.floats(0, 1e9))
def test_a_rush_is_over_soon_after_the_last_job(jobs: int, begin: float) -> None:
    stream = Rush()
    stream.found(begin, jobs, full=False)
    assert stream.on(begin) is (jobs >= Rush.MANY)
    assert not stream.on(begin + 0.4)
    assert not stream.on(begin + 1e6)


def test_it_is_a_rush_while_there_is_more_than_can_be_taken() -> None:
    stream = Rush()
    for n in range(5):
        stream.found(float(n), 1, full=True)
        assert stream.on(n + 0.9) is (n >= Rush.FULL - 1)
    stream.found(5.0, 0, full=False)
    assert not stream.on(5.0)
