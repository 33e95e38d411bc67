"""docs/reference.md: every public name is on it, and every name on it is there."""

from __future__ import annotations

import re
from pkgutil import resolve_name

import dbjobq
from tests.support.page import ROOT

TEXT = (ROOT / "docs/reference.md").read_text()
NAMES = re.findall(r"^::: ([\w.]+)$", TEXT, re.MULTILINE)
MEMBERS = re.findall(r"^        - (\w+)$", TEXT, re.MULTILINE)


def test_every_name_of_the_page_is_there() -> None:
    assert all(resolve_name(name) is not None for name in NAMES)


def test_every_public_name_is_on_the_page() -> None:
    shown = {name.rpartition(".")[2] for name in NAMES} | set(MEMBERS)
    assert set(dbjobq.__all__) - shown == {"__version__"}
