"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click

from dbjobq.models import Job

__all__ = ["as_json", "echo_json", "json_option", "markdown_table", "moment", "one_line", "printable", "table"]

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def as_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON has it, its times as ISO 8601."""
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in asdict(job).items()}


def echo_json(value: Any) -> None:
    """Print a value as JSON. ASCII only: every terminal and every pipe can take it."""
    click.echo(json.dumps(value, indent=2))


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(text: str) -> str:
    """Return text with what could move a terminal's cursor written as escapes: it comes from the database."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def moment(at: datetime | None) -> str:
    """Return a time for people, in UTC and to the second; nothing for None."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned columns: numbers to the right, all else to the left."""
    rows = list(rows)
    columns = [_column(name, [row[at] for row in rows]) for at, name in enumerate(header)]
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as a table in Markdown: the first column to the left, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _column(name: str, cells: Sequence[object]) -> list[str]:
    texts = [name, *(printable(str(cell)) for cell in cells)]
    width = max(map(len, texts))
    numbers = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
    return [text.rjust(width) if numbers else text.ljust(width) for text in texts]
