"""What callers may give as names and numbers, and what not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbjobq.checks import check_integer, check_name, check_number, check_seconds


def one_or_more(value: object) -> int:
    return check_integer(value, "it", 1)


def factor(value: object) -> float:
    return check_number(value, "it", 1.0)


def wait(value: object) -> float:
    return check_seconds(value, "it")


def timeout(value: object) -> float:
    return check_seconds(value, "it", above_zero=True)


@pytest.mark.parametrize("name", ["a", "é", "\U0001f600", "a b\n\t", "'\"\\%s{}", "x" * 200])
def test_names_are_kept(name: str) -> None:
    assert check_name(name, "queue") == name


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ValueError),
        ("x" * 201, ValueError),
        ("a\x00", ValueError),
        ("é\x00", ValueError),
        ("\ud800", ValueError),
        ("a\udfffb", ValueError),
        (None, TypeError),
        (b"a", TypeError),
        (5, TypeError),
    ],
)
def test_what_is_no_name_is_refused(name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="queue=") as caught:
        check_name(name, "queue")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("check", "value", "error"),
    [
        (one_or_more, 0, ValueError),
        (one_or_more, 2**31, ValueError),
        (one_or_more, 1.0, TypeError),
        (one_or_more, True, TypeError),
        (factor, 0.5, ValueError),
        (factor, float("nan"), ValueError),
        (factor, float("inf"), ValueError),
        (factor, "1", TypeError),
        (wait, -1, ValueError),
        (wait, float("nan"), ValueError),
        (wait, 1e300, ValueError),
        (wait, False, TypeError),
        (timeout, 0, ValueError),
    ],
)
def test_numbers_of_the_wrong_kind_or_out_of_range_are_refused(
    check: Callable[[object], object], value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^it="):
        check(value)


def test_numbers_in_range_are_kept() -> None:
    assert check_integer(7, "it", 7) == 7
    assert check_number(2, "it", 2.0) == 2
    assert check_seconds(0, "it") == 0.0
