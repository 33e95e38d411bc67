from __future__ import annotations

from datetime import UTC, datetime

from dbjobq.cli.output import as_json, moment, one_line, printable, table
from dbjobq.models import Job


def test_a_table_has_its_numbers_to_the_right() -> None:
    assert table(("name", "jobs"), [("a", 1), ("long", 20)]) == "name  jobs\na        1\nlong    20"


def test_a_table_without_rows_is_its_header() -> None:
    assert table(("a", "b"), []) == "a  b"


def test_what_moves_the_cursor_is_escaped() -> None:
    assert printable("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"
    assert printable("größer 漢") == "größer 漢"


def test_an_error_is_one_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"


def test_times_are_iso_8601_in_json_and_short_for_people() -> None:
    at = datetime(2026, 1, 31, 9, 30, 1, 5, tzinfo=UTC)
    assert as_json(Job("id", "type", created_at=at))["created_at"] == "2026-01-31T09:30:01.000005+00:00"
    assert moment(at) == "2026-01-31 09:30:01Z"
    assert moment(None) == ""
