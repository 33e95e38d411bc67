"""When a failed job runs again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbjobq import Discard, Retry, RetryPolicy
from dbjobq.attempt.describe import MAX_ERROR, describe
from dbjobq.attempt.outcome import completed, failed, failed_with
from dbjobq.jobs.retry import DEFAULT_RETRY
from dbjobq.storage.values import Claim

CLAIM = Claim(
    id="01a20a8f-9c22-76e4-9219-c1f8944f2bb3", claim="1", attempts=0, type="f", data="{}", queue="default", priority=5,
    max_retries=3, timeout=None, ties=0, created_at=0.0, execute_at=None, claimed_at=0.0,
)  # fmt: skip


def test_the_wait_doubles_from_2_seconds_to_an_hour() -> None:
    waits = [DEFAULT_RETRY.delay(n, 0.0) for n in range(1, 15)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600]


@given(st.integers(1, 2**31), st.floats(0, 1, exclude_max=True))
def test_jitter_adds_up_to_a_tenth(retry: int, chance: float) -> None:
    plain = DEFAULT_RETRY.delay(retry, 0.0)
    assert plain <= DEFAULT_RETRY.delay(retry, chance) <= plain * 1.1
    assert plain <= 3600


def test_a_policy_can_be_constant_and_without_jitter() -> None:
    policy = RetryPolicy(base=60.0, factor=1.0, jitter=0.0)
    assert [policy.delay(n, 0.99) for n in (1, 5, 10_000)] == [60.0] * 3
    assert RetryPolicy(base=0.0).delay(3, 0.5) == 0.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base", -1.0),
        ("base", float("nan")),
        ("base", float("inf")),
        ("factor", 0.5),
        ("max_delay", -1.0),
        ("jitter", -0.1),
    ],
)
def test_a_policy_out_of_range_is_refused(name: str, value: float) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name}={value}"):
        RetryPolicy(**settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base", "x"),
        ("factor", None),
        ("jitter", True),
        ("on", [ValueError]),
        ("on", None),
        ("on", "abc"),
        ("on", (ValueError, 3)),
        ("on", ValueError("x")),
        ("on", int),
        ("never", [KeyError]),
        ("never", {KeyError}),
    ],
)
def test_a_policy_of_the_wrong_types_is_refused_when_it_is_made(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=f"^{name}="):
        RetryPolicy(**settings)


def test_a_policy_takes_one_class_or_a_tuple_of_them() -> None:
    policy = RetryPolicy(on=OSError, never=FileNotFoundError)
    assert policy.worth(ConnectionError())
    assert not policy.worth(FileNotFoundError())
    assert not RetryPolicy(on=()).worth(ValueError())


class Unable(RetryPolicy):
    """A policy of a user's own that cannot decide."""

    def worth(self, error: BaseException) -> bool:
        raise SystemExit("undecided") if isinstance(error, OSError) else LookupError("undecided")


class Unsure(RetryPolicy):
    """One that has delays for nobody."""

    def delay(self, retry: int, chance: float) -> float:  # noqa: ARG002 - as it is called
        return float("nan") if retry == 1 else "soon"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("policy", "error", "attempts"),
    [
        (Unable(), KeyError("x"), 0),
        (Unable(), ConnectionError("x"), 0),
        (Unsure(), KeyError("x"), 0),
        (Unsure(), KeyError("x"), 1),
    ],
)
def test_where_a_policy_raises_the_default_one_decides(policy: RetryPolicy, error: Exception, attempts: int) -> None:
    claim = CLAIM._replace(attempts=attempts)
    outcome = failed(claim, error, policy)
    assert outcome.event == "retry"
    assert 2.0 * (attempts + 1) <= outcome.delay <= 2.2 * (attempts + 1)
    assert outcome.error is not None
    assert outcome.error.startswith(f"{type(error).__name__}: ")
    assert "The default retry policy was used" in outcome.error
    assert failed(claim, Discard(), policy).event == "fail"


def test_a_delay_that_is_none_is_said_of_fail_too() -> None:
    outcome = failed_with(CLAIM, "said", Unsure())
    assert outcome.event == "retry"
    assert outcome.error is not None
    assert outcome.error.startswith("said\n\nThe default retry policy was used")


def test_a_policy_says_which_exceptions_are_worth_a_retry() -> None:
    policy = RetryPolicy(on=(OSError, KeyError), never=(FileNotFoundError,))
    assert policy.worth(ConnectionError())
    assert policy.worth(KeyError())
    assert not policy.worth(FileNotFoundError())
    assert not policy.worth(ValueError())
    assert policy.worth(Retry())
    assert not policy.worth(Discard())
    assert DEFAULT_RETRY.worth(SystemExit())
    assert not DEFAULT_RETRY.worth(Discard())


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_retry_refuses_a_wait_out_of_range(after: float | timedelta) -> None:
    with pytest.raises(ValueError, match="after="):
        Retry(after=after)


def test_an_outcome_follows_the_policy_and_what_is_left() -> None:
    first = failed(CLAIM, ValueError("x"))
    assert first.event == "retry"
    assert 2.0 <= first.delay <= 2.2
    assert failed(CLAIM._replace(attempts=3), ValueError("x")).event == "fail"
    assert failed(CLAIM._replace(max_retries=0), Retry(after=5)).event == "fail"
    assert failed(CLAIM, Retry(after=timedelta(minutes=1))).delay == 60.0
    assert failed(CLAIM, Discard("no")).event == "fail"
    third = failed_with(CLAIM._replace(attempts=2), "said")
    assert (third.event, third.error) == ("retry", "said")
    assert 8.0 <= third.delay <= 8.8


def test_a_result_that_is_no_json_is_dropped_and_the_error_says_so() -> None:
    assert completed(CLAIM, {"a": 1}).result == '{"a":1}'
    assert completed(CLAIM, None).plain
    outcome = completed(CLAIM, {1, 2})
    assert (outcome.event, outcome.result) == ("complete", None)
    assert outcome.error is not None
    assert "set" in outcome.error


class Broken(Exception):  # noqa: N818 - it is what its name says
    def __str__(self) -> str:
        raise RuntimeError("no message")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("NUL \x00 and \ud800"),
        ValueError("x" * 10_000_000),
        Broken(),
        KeyboardInterrupt(),
        SystemExit(3),
        RecursionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_can_be_described_and_stored(error: BaseException) -> None:
    try:
        raise error
    except BaseException as caught:
        text = describe(caught)
    assert text.startswith(type(error).__name__)
    assert "\x00" not in text
    text.encode()
    assert len(text) <= 2 * MAX_ERROR + 1000


def test_the_first_line_is_the_type_and_the_message() -> None:
    assert describe(ValueError("the message")).splitlines()[0] == "ValueError: the message"
