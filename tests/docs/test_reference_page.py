"""docs/reference.md: every public name is on it, and every name on it is there."""

from __future__ import annotations

import inspect
import re
from pkgutil import resolve_name

import dbjobq
from dbjobq.jobs.registry import DEFAULT_MAX_RETRIES, DEFAULT_PRIORITY, DEFAULT_QUEUE
from dbjobq.queue.options import EnqueueOptions
from tests.support.page import ROOT

TEXT = (ROOT / "docs/reference.md").read_text()
NAMES = re.findall(r"^::: ([\w.]+)$", TEXT, re.MULTILINE)
MEMBERS = re.findall(r"^        - (\w+)$", TEXT, re.MULTILINE)


def test_every_name_of_the_page_is_there() -> None:
    assert all(resolve_name(name) is not None for name in NAMES)


def test_every_public_name_is_on_the_page() -> None:
    shown = {name.rpartition(".")[2] for name in NAMES} | set(MEMBERS)
    assert set(dbjobq.__all__) - shown == {"__version__"}


def test_the_table_of_options_has_each_with_its_default() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
    of_job, of_options = set[str](), set[str]()
    for names, _, where in rows:
        of_job |= set(re.findall(r"\w+", names)) if "`@job`" in where else set()
        of_options |= set(re.findall(r"\w+", names)) if "options" in where else set()
    assert of_job == set(inspect.signature(dbjobq.job).parameters) - {"function", "name", "aliases"}
    assert of_options == set(EnqueueOptions.__annotations__)
    said = {name.strip("`"): default for name, default, _ in rows}
    assert said["queue"] == f'`"{DEFAULT_QUEUE}"`'
    assert said["priority"] == str(DEFAULT_PRIORITY)
    assert said["max_retries"].startswith(f"{DEFAULT_MAX_RETRIES}:")
    delays = [round(dbjobq.RetryPolicy().delay(n, 0)) for n in (1, 2, 3)]
    assert said["retry"].startswith(", ".join(map(str, delays)))
