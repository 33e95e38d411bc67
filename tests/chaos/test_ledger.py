"""The ledger counts what was written whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.ledger import FOLDER, Book, read

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_a_killed_process_was_about_to_write_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    book = Book()
    book.note("intent", call="1", kind="bulk", tags=["a", "b"], key=None)
    book.note("acknowledged", call="1", ids=["0" * 36, "1" * 36])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-20])

    (call,) = read(tmp_path).calls
    assert (call.tags, call.ids) == (("a", "b"), None)
