"""docs/architecture.md: every path that it names is there, and no room is left out."""

from __future__ import annotations

import re

from tests.support.page import ROOT

TEXT = (ROOT / "docs/architecture.md").read_text()
PACKAGE = ROOT / "dbjobq"
NAMED = set(re.findall(r"`((?:[\w-]+/)*[\w-]+(?:\.py|\.sql|/))`", TEXT))
"""Paths from the package, or their last parts, where the sentence before says in which room they are."""


def test_every_path_on_the_page_is_there() -> None:
    places = (PACKAGE, ROOT / "tests")
    missing = {path for path in NAMED if not ((ROOT / path).exists() or any([*place.rglob(path)] for place in places))}
    assert missing == set()


def test_every_room_stands_in_the_tree() -> None:
    tree = TEXT[TEXT.index("## The tree") : TEXT.index("## The life of a job")]
    rooms = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")}
    named = set(re.findall(r"`([\w/]+/)`", tree))
    assert rooms - {"./"} - named - {f"cli/{name}" for name in named} == set()
