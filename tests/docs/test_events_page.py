"""docs/events.md is what the table of events makes it, and has all of them."""

from __future__ import annotations

import re
import sys
from subprocess import run

from dbjobq.events.names import EVENTS
from tests.support.page import ROOT

TEXT = (ROOT / "docs/events.md").read_text()


def test_the_page_is_made_from_the_table() -> None:
    made = run([sys.executable, "-m", "dbjobq.events"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == TEXT, "python -m dbjobq.events > docs/events.md"


def test_every_event_is_on_the_page_once() -> None:
    assert sorted(re.findall(r"^### `(.*)`$", TEXT, re.MULTILINE)) == sorted(EVENTS)
