"""The report of a benchmark: medians of the rounds, as tables and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import psycopg

import dbjobq
from dbjobq.bench.meter import Meter
from dbjobq.bench.sample import Sample

__all__ = ["Report", "Table", "machine"]

SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "jit")


SERVER_TIME: Final = {
    "cpu": "CPU time of the server's processes",
    "active": "time in which statements ran on the server, waits included (its processes cannot be seen from here)",
}


class _Column(NamedTuple):
    """A figure's column: its title and format."""

    label: str
    form: str
    ranged: bool = False
    """Whether the least and the most of all rounds are shown, too."""


COLUMNS: Final[Mapping[str, _Column]] = {
    "per_s": _Column("jobs/s", ",.0f", ranged=True),
    "ratio": _Column("ratio", ".2f", ranged=True),
    "times": _Column("dbjobq / this", ".2f", ranged=True),
    "p50_ms": _Column("p50 ms", ".2f", ranged=True),
    "p95_ms": _Column("p95 ms", ".2f"),
    "p99_ms": _Column("p99 ms", ".2f", ranged=True),
    "wal_bytes": _Column("WAL bytes/job", ",.0f"),
    "server_us": _Column("server us/job", ".1f"),
    "server_ratio": _Column("ratio of server us", ".2f", ranged=True),
    "client_us": _Column("client us/job", ".1f"),
    "idle_per_s": _Column("transactions/s", ".2f"),
}


class Table(NamedTuple):
    """One measurement, for people."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def machine(connection: psycopg.Connection[Any], meter: Meter, server: str) -> dict[str, Any]:
    """Return the settings and versions that the figures depend on."""
    settings = connection.execute(
        "select name, current_setting(name) from pg_settings where name = any (%s)", [[*SETTINGS]]
    )
    return {
        "dbjobq": dbjobq.__version__,
        "server": server,
        **dict(settings.fetchall()),
        "server time": SERVER_TIME[meter.clock],
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The figures of a benchmark, and what they depend on."""

    machine: Mapping[str, Any]
    sizes: Mapping[str, Any]
    titles: Mapping[str, str]
    """The measurements' titles, for people."""
    samples: Mapping[str, Sequence[Sample]]
    """A sample for each round, by measurement."""

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs: every figure of every round, and their medians."""
        return {
            "machine": self.machine,
            "sizes": self.sizes,
            "figures": {
                name: {way: {key: _summed_up(values) for key, values in found.items()} for way, found in ways.items()}
                for name, ways in self._figures()
            },
        }

    def tables(self) -> Iterator[Table]:
        """Yield the report for people, a table for each measurement."""
        for name, ways in self._figures():
            columns = [key for key in COLUMNS if any(key in found for found in ways.values())]
            rows = [[way, *(_cell(key, found.get(key)) for key in columns)] for way, found in ways.items()]
            yield Table(self.titles[name], ["", *(COLUMNS[key].label for key in columns)], rows)

    def _figures(self) -> Iterator[tuple[str, dict[str, dict[str, list[float]]]]]:
        """Yield the measurements: by way and figure, the values of all rounds."""
        for name, rounds in self.samples.items():
            yield (
                name,
                {way: {key: [it[way][key] for it in rounds] for key in found} for way, found in rounds[0].items()},
            )


def _summed_up(values: Sequence[float]) -> dict[str, Any]:
    rounds = [round(value, 4) for value in values]
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def _cell(key: str, values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    column = COLUMNS[key]
    low, middle, high = (format(value, column.form) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})" if column.ranged and len(values) > 1 else middle
