"""docs/architecture.md: no room is left out. That the files which it names are there is seen in `test_links.py`."""

from __future__ import annotations

import re

from tests.support.page import ROOT

TEXT = (ROOT / "docs/architecture.md").read_text()
PACKAGE = ROOT / "dbjobq"


def test_every_room_stands_in_the_tree() -> None:
    tree = TEXT[TEXT.index("## The tree") : TEXT.index("## The life of a job")]
    rooms = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")}
    named = set(re.findall(r"`([\w/]+/)`", tree))
    assert rooms - {"./"} - named - {f"cli/{name}" for name in named} == set()
