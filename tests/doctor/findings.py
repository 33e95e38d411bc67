"""What the doctor finds, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from dbjobq.doctor import Finding, examine
from dbjobq.storage.base import BaseStorage


def troubles(storage: BaseStorage, modules: Iterable[str] = ()) -> list[Finding]:
    """Everything that is not as it should be."""
    return [finding for finding in examine(storage, modules) if finding.severity != "ok"]


def only(storage: BaseStorage, modules: Iterable[str] = ()) -> Finding:
    """The one thing that is not."""
    (finding,) = troubles(storage, modules)
    assert finding.advice or finding.check == "schema"
    return finding
