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


def test_the_pages_name_no_event_that_is_not_there() -> None:
    """What looks like one and is something else is code of the example's: `job.id`, `worker.stop()`."""
    words = {name.partition(".")[2] for name in EVENTS}
    families = "|".join({name.partition(".")[0] for name in EVENTS})
    gone = "lost|ended|broken|stuck|stalled|lapsed|died|failing"
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        named = set(re.findall(rf"`((?:{families})\.(?:{'|'.join(words)}|{gone}))`", page.read_text()))
        assert named <= set(EVENTS), page
