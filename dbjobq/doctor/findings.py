"""Findings: what the doctor's checks return, and how they are ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

__all__ = ["SEVERITIES", "Finding", "Rows", "Severity", "plural", "ranked", "span", "worst"]

Severity = Literal["ok", "notice", "warning", "critical"]

SEVERITIES: Final[tuple[Severity, ...]] = ("ok", "notice", "warning", "critical")
"""Nothing to do; worth knowing; will hurt; hurts or loses jobs now."""

_NEAREST: Final[Mapping[str, int]] = {
    check: place
    for place, check in enumerate(
        (
            "schema",
            "states",
            "orphans",
            "queues",
            "job types",
            "leases",
            "schedule",
            "indexes",
            "publications",
            "pooler",
            "notifications",
            "horizon",
            "dead rows",
            "autovacuum",
            "bloat",
            "server",
            "settings",
            "rights",
        )
    )
}
"""The checks, the nearest to the jobs first: the jobs themselves, then the tables, then the server's settings."""

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""The rows that a check judges, by the names of the statement's columns."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check."""

    check: str
    severity: Severity
    found: str
    """The finding in plain words, with the values."""
    advice: str = ""
    """Advice on what to do; empty where there is nothing to do."""


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the highest severity among them."""
    return SEVERITIES[max((SEVERITIES.index(finding.severity) for finding in findings), default=0)]


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order in which to mend them: the worst first, and of those the nearest to the jobs."""
    return sorted(findings, key=lambda it: (-SEVERITIES.index(it.severity), _NEAREST.get(it.check, len(_NEAREST))))


def span(seconds: float) -> str:
    """Return a duration for people."""
    for name, unit in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def plural(number: int, what: str, *, more: bool = False) -> str:
    """Return a number of things in words; `more` says that there may be more of them."""
    return f"{number:,}{'+' * more} {what}{'s' * (number != 1)}"
