"""The figures that one round of a measurement brings for each way of doing a thing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dbjobq.rig.percentile import percentile

__all__ = ["Figures", "Measure", "Sample", "compared", "spread"]

Figures: TypeAlias = dict[str, float]
"""Figures by name, which ends in the unit; `report` knows all names."""
Sample: TypeAlias = dict[str, Figures]
Measure: TypeAlias = Callable[[], Sample]
"""Measures one round."""


def compared(sample: Sample, yardstick: str, figure: str = "per_s", ratio: str = "ratio") -> Sample:
    """Return a sample in which every way but the yardstick has its ratio to the yardstick."""
    base = sample[yardstick][figure]
    return {
        way: figures if way == yardstick else {**figures, ratio: figures[figure] / base}
        for way, figures in sample.items()
    }


def spread(seconds: Sequence[float]) -> Figures:
    """Return the percentiles of durations."""
    return {f"p{part}_ms": percentile(seconds, part) * 1000 for part in (50, 95, 99)}
