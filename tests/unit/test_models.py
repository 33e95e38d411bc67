"""The life cycle as a table, and Job as a record."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dbjobq
from dbjobq import Job
from dbjobq.models import CODES, STATUSES, TRANSITIONS, Event, Status, after_failure

EVENTS: tuple[Event, ...] = get_args(Event)

# Said a second time, in the contract's words, so that a slip in the table shows.
MOVES = {
    "pending": {"claim": "running", "cancel": "cancelled"},
    "running": {
        "complete": "completed",
        "retry": "pending",
        "fail": "failed",
        "release": "pending",
        "unknown": "pending",
        "cancel": "cancelled",
    },
    "completed": {},
    "failed": {"revive": "pending"},
    "cancelled": {"revive": "pending"},
}


@pytest.mark.parametrize(("status", "event"), list(itertools.product(STATUSES, EVENTS)))
def test_every_status_meets_every_event(status: Status, event: Event) -> None:
    assert TRANSITIONS.get((status, event)) == MOVES[status].get(event)


def test_the_table_speaks_of_known_words_only() -> None:
    assert set(MOVES) == set(STATUSES)
    assert {status for status, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(STATUSES)
    assert {event for _, event in TRANSITIONS} == set(EVENTS)


def test_every_event_that_is_written_has_a_number_of_its_own() -> None:
    leaves = {event for (status, event) in TRANSITIONS if status == "running"}
    assert set(CODES) == leaves
    assert len(set(CODES.values())) == len(CODES)


def test_no_statement_has_a_bare_number_for_a_status_or_an_event() -> None:
    bare = re.compile(r"\b(status|event)\b[^,;]{0,24}?(=|<>|in \()\s*\d|(?<![\w.])when \d+ then")
    written = re.compile(r"insert into \{schema\}\.done \(([^)]*)\)\s*select ([^;]*?)\bfrom\b")
    sql = Path(dbjobq.__file__).parent / "storage"
    files = [*sql.rglob("*.sql"), *sql.rglob("statements.py")]
    assert len(files) > 50
    for file in files:
        text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("--"))
        assert bare.search(text) is None, file
        for columns, values in written.findall(text):
            value = values.split(", ")[columns.split(", ").index("status")]
            assert not value.strip().isdigit(), file


def test_the_diagram_in_the_docs_is_that_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "life-cycle.md").read_text()
    arrows = [f"    {status} --> {after}: {event}" for (status, event), after in TRANSITIONS.items()]
    assert "\n".join(["stateDiagram-v2", "    [*] --> pending: enqueue", *arrows, "```"]) in page
    assert all(f"- `{event}`: " in page for event in EVENTS)


def test_every_job_can_come_to_an_end_and_completed_is_final() -> None:
    reached: set[str] = {"pending"}
    while more := {after for status in reached for after in MOVES[status].values()} - reached:
        reached |= more
    assert reached == set(STATUSES)
    assert MOVES["completed"] == {}


@pytest.mark.parametrize("max_retries", range(4))
def test_a_job_starts_at_most_max_retries_plus_1_times(max_retries: int) -> None:
    starts = next(n for n in itertools.count() if after_failure(n, max_retries) == "fail") + 1
    assert starts == max_retries + 1


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
JOBS = st.builds(
    Job,
    id=st.uuids().map(str),
    type=st.text(min_size=1),
    data=st.dictionaries(st.text(), JSON, max_size=4),
    status=st.sampled_from(STATUSES),
    queue=st.text(min_size=1),
    priority=st.integers(-(2**31), 2**31 - 1),
    attempts=st.integers(0, 2**31),
    max_retries=st.integers(0, 2**31 - 1),
    execute_at=TIMES,
    created_at=TIMES,
    updated_at=TIMES,
    started_at=TIMES,
    finished_at=TIMES,
    error=st.none() | st.text(),
    result=JSON,
    worker_id=st.none() | st.text(),
)


@given(JOBS)
def test_asdict_and_from_dict_are_inverse(job: Job) -> None:
    assert Job.from_dict(dataclasses.asdict(job)) == job


@given(JOBS)
def test_data_may_be_json_text(job: Job) -> None:
    for text in (json.dumps(job.data), json.dumps(job.data).encode()):
        assert Job.from_dict(dataclasses.asdict(job) | {"data": text}) == job


def test_what_is_missing_gets_its_default() -> None:
    job = Job.from_dict({"id": "1", "type": "t", "unknown": 5})
    assert job == Job(
        id="1", type="t", data={}, status="pending", queue="default", priority=5, attempts=0, max_retries=3,
        execute_at=None, created_at=None, updated_at=None, started_at=None, finished_at=None, error=None, result=None,
        worker_id=None,
    )  # fmt: skip
    assert Job.from_dict({"id": "1", "type": "t"}).data is not Job.from_dict({"id": "1", "type": "t"}).data


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({}, "id and type"),
        ({"id": "1"}, "type"),
        ({"type": "t"}, "id"),
        ({"id": "1", "type": "t", "data": [1]}, "data="),
        ({"id": "1", "type": "t", "data": None}, "data="),
        ({"id": "1", "type": "t", "data": "[1]"}, "data="),
        ({"id": "1", "type": "t", "data": "{"}, "Expecting"),
    ],
)
def test_a_mapping_that_is_no_job_is_refused(mapping: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Job.from_dict(mapping)


def test_times_keep_their_zone() -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    assert Job.from_dict({"id": "1", "type": "t", "created_at": when}).created_at == when
