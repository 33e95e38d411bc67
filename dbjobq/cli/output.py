"""The output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click

from dbjobq.models import Job
from dbjobq.storage.values import Count

__all__ = [
    "as_json",
    "cut",
    "echo_json",
    "fitted",
    "folded",
    "json_option",
    "markdown_table",
    "moment",
    "one_line",
    "plural",
    "printable",
    "table",
    "width",
]

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs to read.")


def as_json(job: Job) -> dict[str, Any]:
    """Return a job's fields for JSON, with times in ISO 8601."""
    return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in asdict(job).items()}


def echo_json(value: Any) -> None:
    """Print a value as JSON. ASCII only: every terminal and every pipe can take it."""
    click.echo(json.dumps(value, indent=2))


def one_line(error: BaseException) -> str:
    """Return an error's message as one line."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(text: str) -> str:
    """Return text with unprintable characters as escapes: text of the database might move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def moment(at: datetime | None) -> str:
    """Return a time for people, in UTC and to the second; nothing for None."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def width() -> int | None:
    """Return how many columns the terminal has; None if standard output is a file or a program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cut(text: str, to: int) -> str:
    """Return the first line of a text, cut to `to` characters."""
    line = printable(text.partition("\n")[0])
    return line if len(line) <= to else f"{line[: max(0, to - 1)]}…"


def folded(name: str, text: str, to: int | None, *, indent: int) -> str:
    """Return a text behind a name, folded between words if it is wider than `to` columns."""
    line = name + printable(text)
    if to is None or len(line) <= to:
        return line
    return textwrap.fill(line, to, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def plural(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned columns: numbers to the right, text to the left."""
    rows = list(rows)
    columns = [_column(name, [row[at] for row in rows]) for at, name in enumerate(header)]
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def fitted(header: Sequence[str], rows: Iterable[Sequence[object]], to: int | None) -> str:
    """Return a table; if it is wider than `to` columns, each row as a block: its name, then a line for each figure."""
    rows = list(rows)
    whole = table(header, rows)
    if to is None or max(map(len, whole.splitlines())) <= to:
        return whole
    blocks: list[str] = []
    for name, *figures in rows:
        lines = [(f"  {label}", figure) for label, figure in zip(header[1:], figures, strict=True) if figure != ""]
        blocks += [str(name), *table(("", ""), lines).splitlines()[1:]]
    return "\n".join(blocks)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as a table in Markdown: the first column to the left, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _column(name: str, cells: Sequence[object]) -> list[str]:
    texts = [name, *(printable(str(cell)) for cell in cells)]
    width = max(map(len, texts))
    numbers = bool(cells) and all(isinstance(cell, int | float | Count) for cell in cells)
    return [text.rjust(width) if numbers else text.ljust(width) for text in texts]
