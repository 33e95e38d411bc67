"""What the benchmark prints at the end: medians of the rounds, as tables and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import dbjobq
from dbjobq.bench.sample import Figures, Sample
from dbjobq.bench.stage import Sizes, Stage

__all__ = ["Report", "Table", "machine"]

SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "jit")


SERVER_TIME: Final = {
    "cpu": "CPU time of the server's processes",
    "active": "time in which statements ran on the server, waits included (its processes cannot be seen from here)",
}


class _Column(NamedTuple):
    """How a figure is shown."""

    label: str
    form: str
    ranged: bool = False
    """With the least and the most of all rounds."""


COLUMNS: Final[Mapping[str, _Column]] = {
    "per_s": _Column("jobs/s", ",.0f", ranged=True),
    "ratio": _Column("ratio", ".2f", ranged=True),
    "p50_ms": _Column("p50 ms", ".2f", ranged=True),
    "p95_ms": _Column("p95 ms", ".2f"),
    "p99_ms": _Column("p99 ms", ".2f", ranged=True),
    "wal_bytes": _Column("WAL bytes/job", ",.0f"),
    "server_us": _Column("server us/job", ".1f"),
    "server_ratio": _Column("ratio of server us", ".2f", ranged=True),
    "client_us": _Column("client us/job", ".1f"),
}
TITLES: Final[Mapping[str, str]] = {
    "enqueue": "enqueue: one after the other, each durable before the next",
    "bulk": "bulk: many jobs in one call",
    "drain": "drain: jobs that do nothing, claimed, run and completed by one worker process",
    "life": "life: bulk enqueue, claim and completion together, async def",
    "idle": "idle: from the commit of an enqueue to the start of its job by a worker that slept",
    "load": "load: the same while jobs come at a steady rate, from the moment each was due",
    "backlog": "backlog: a claim of 10 jobs with many of one kind lying around; ratio to an empty system",
    "gate": "gate: 16 producers at once; ratio to the same without NOTIFY",
}


class Table(NamedTuple):
    """One measurement, for people."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def machine(stage: Stage, server: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    settings = stage.look("select name, current_setting(name) from pg_settings where name = any (%s)", [*SETTINGS])
    return {
        "dbjobq": dbjobq.__version__,
        "server": server,
        **dict(settings),
        "server time": SERVER_TIME[stage.meter.clock],
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of the benchmark."""

    machine: Mapping[str, Any]
    sizes: Sizes
    samples: Mapping[str, Sequence[Sample]]
    """By measurement: a sample for each round."""

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: every figure of every round, and their medians."""
        return {
            "machine": self.machine,
            "sizes": asdict(self.sizes),
            "figures": {
                name: {way: {key: _summed_up(values) for key, values in found.items()} for way, found in ways.items()}
                for name, ways in self.figures().items()
            },
        }

    def tables(self) -> Iterator[Table]:
        """Yield the report for people, a table for each measurement."""
        for name, ways in self.figures().items():
            columns = [key for key in COLUMNS if any(key in found for found in ways.values())]
            rows = [[way, *(_cell(key, found.get(key)) for key in columns)] for way, found in ways.items()]
            yield Table(TITLES[name], ["", *(COLUMNS[key].label for key in columns)], rows)

    def figures(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return the values of all rounds by measurement, way and figure."""
        found = {name: _transposed(rounds) for name, rounds in self.samples.items()}
        if {"bulk", "drain"} <= self.samples.keys():
            found["life"] = _transposed([*map(_life, self.samples["bulk"], self.samples["drain"])])
        return found


def _transposed(rounds: Sequence[Sample]) -> dict[str, dict[str, list[float]]]:
    return {way: {key: [it[way][key] for it in rounds] for key in found} for way, found in rounds[0].items()}


def _life(bulk: Sample, drain: Sample) -> Sample:
    """Return what a job costs from its enqueue to its end."""

    def both(enqueued: Figures, drained: Figures) -> Figures:
        return {key: enqueued[key] + drained[key] for key in ("wal_bytes", "server_us")}

    return {
        "dbjobq": both(bulk["enqueue_many"], drain["async def"]),
        "bare SQL": both(bulk["bare COPY"], drain["bare loop"]),
    }


def _summed_up(values: Sequence[float]) -> dict[str, Any]:
    rounds = [round(value, 4) for value in values]
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def _cell(key: str, values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    column = COLUMNS[key]
    low, middle, high = (format(value, column.form) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})" if column.ranged and len(values) > 1 else middle
