"""Ids: UUIDv7 text, one by one and in runs."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbjobq.ids import JobIds, as_uuid, new_id


def test_thousands_of_ids_made_at_once_sort_as_they_were_made() -> None:
    ids = [new_id() for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(uuid.UUID(i).version == 7 and str(uuid.UUID(i)) == i for i in ids[:10])


@pytest.mark.parametrize(
    "form",
    [
        "01a20a8f-9c22-76e4-9219-c1f8944f2bb3",
        "01A20A8F-9C22-76E4-9219-C1F8944F2BB3",
        "01a20a8f9c2276e49219c1f8944f2bb3",
        "{01a20a8f-9c22-76e4-9219-c1f8944f2bb3}",
        "urn:uuid:01a20a8f-9c22-76e4-9219-c1f8944f2bb3",
        uuid.UUID("01a20a8f-9c22-76e4-9219-c1f8944f2bb3"),
    ],
)
def test_an_id_has_one_form(form: object) -> None:
    assert as_uuid(form) == "01a20a8f-9c22-76e4-9219-c1f8944f2bb3"


@pytest.mark.parametrize("wrong", ["", "x", "\x00", "\ud800", "0" * 33, "01a20a8f-9c22-76e4-9219-c1f8944f2bbg"])
def test_other_text_is_no_id(wrong: str) -> None:
    with pytest.raises(ValueError, match="key="):
        as_uuid(wrong, "key")


@pytest.mark.parametrize("wrong", [None, 5, b"x", 1.5])
def test_other_types_are_no_id(wrong: object) -> None:
    with pytest.raises(TypeError, match="id="):
        as_uuid(wrong)


def test_a_run_of_ids_is_a_sequence_of_uuid7s_in_order() -> None:
    before = new_id()
    ids = JobIds.new().grown(3000)
    texts = list(ids)
    assert len(ids) == len(texts) == 3000
    assert before < texts[0]
    assert texts == sorted(set(texts))
    assert all(uuid.UUID(i).version == 7 and str(uuid.UUID(i)) == i for i in texts)
    assert texts[7] in ids
    assert before not in ids


@given(st.integers(0, 12), st.slices(12))
def test_a_run_is_read_as_a_list_is(count: int, part: slice) -> None:
    ids = JobIds.new().grown(count)
    texts = list(ids)
    assert ids[part] == texts[part]
    assert [ids[n] for n in range(-count, count)] == [texts[n] for n in range(-count, count)]
    assert ids == texts == ids
    assert texts == ids
    assert ids + texts == texts + ids == texts * 2
    assert list(reversed(ids)) == texts[::-1]
    with pytest.raises(IndexError):
        ids[count]


@pytest.mark.parametrize("other", [["x"], [], "", None, 5, {}])
def test_a_run_differs_from_other_things(other: Any) -> None:
    assert JobIds.new().grown(1) != other
    assert JobIds.new().grown(1) != JobIds.new().grown(1)


def test_a_run_that_grows_keeps_the_ids_it_has() -> None:
    ids = JobIds.new().grown(5)
    assert ids.grown(3)[:5] == list(ids)
    assert len(ids.grown(10**9)) == 10**9 + 5


def test_a_run_says_what_it_is() -> None:
    ids = JobIds.new().grown(4)
    assert repr(ids) == f"<4 job ids: '{ids[0]}', '{ids[1]}', '{ids[2]}', …>"
    assert repr(JobIds.new()) == "<0 job ids: >"
