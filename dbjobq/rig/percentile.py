"""Percentiles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

__all__ = ["percentile"]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` percent of all values do not exceed; 0 if there are no values."""
    return sorted(values)[max(0, ceil(len(values) * part / 100) - 1)] if values else 0.0
