"""What may go into the database as text, and what may not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbjobq.codec.json import (
    MAX_DATA_BYTES,
    dump_arguments,
    dump_result,
    load_arguments,
    storable_text,
)
from tests.unit.test_models import JSON


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_arguments_come_back_as_they_were(arguments: dict[str, Any]) -> None:
    text = dump_arguments(arguments)
    assert text.isascii()
    assert "\n" not in text
    assert load_arguments(text) == json.loads(text) == arguments


@pytest.mark.parametrize(
    "wrong",
    [
        float("nan"),
        float("-inf"),
        b"x",
        {1},
        object(),
        10**5000,
        1j,
        {(1,): 2},
        {1: "a"},
        {1: "a", "1": "b"},
        {None: 1},
        {1.5: 2},
        {True: 1},
        ({"fine": {2: 1}},),
    ],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_json_cannot_hold_is_refused_by_name(wrong: object) -> None:
    for value in (wrong, [wrong], {"inner": [wrong]}):
        with pytest.raises(TypeError, match="'culprit'"):
            dump_arguments({"fine": 1, "culprit": value})
    with pytest.raises(TypeError, match="result"):
        dump_result(wrong)


def test_a_key_that_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match=r"argument 'by_id' .*: the key 7 of a dict is not a string"):
        dump_arguments({"n": 1, "by_id": {"a": {"b": 1}, "c": {7: 1}}})


def test_tuples_become_lists() -> None:
    assert load_arguments(dump_arguments({"at": (1, ({"x": (2,)},))})) == {"at": [1, [{"x": [2]}]]}


def test_nesting_beyond_pythons_limit_and_circles_are_refused_by_name() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    circle: list[Any] = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(TypeError, match="'culprit'"):
            dump_arguments({"culprit": value})
        with pytest.raises(TypeError, match="result"):
            dump_result(value)


def test_the_size_has_a_limit_and_the_error_names_it() -> None:
    assert dump_arguments({"a": "x" * (MAX_DATA_BYTES - 8)})
    with pytest.raises(ValueError, match=f"{MAX_DATA_BYTES:,}"):
        dump_arguments({"a": "x" * (MAX_DATA_BYTES - 7)})
    with pytest.raises(ValueError, match=f"{MAX_DATA_BYTES:,}"):
        dump_result("x" * MAX_DATA_BYTES)


def test_none_is_no_result() -> None:
    assert dump_result(None) is None
    assert dump_result("") == '""'


@given(st.text(st.characters()))
def test_any_text_can_be_made_storable(text: str) -> None:
    stored = storable_text(text)
    assert "\x00" not in stored
    stored.encode()
    if "\x00" not in text and text.isprintable():
        assert stored == text


def test_what_cannot_be_stored_is_escaped() -> None:
    assert storable_text("a\x00b\ud800c") == "a\\x00b\\ud800c"
