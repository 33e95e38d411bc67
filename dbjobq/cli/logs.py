"""How a worker process logs on standard error: a line for each event, a shorter one on a terminal, or JSON."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from dbjobq.cli.output import folded, printable
from dbjobq.events.loggers import name_job
from dbjobq.redact import without_passwords

__all__ = ["LEVELS", "log_to_stderr"]

TERMINAL_COLUMNS: Final = 80
"""The width of a terminal that does not tell its own."""

LONGEST_END: Final = 16_000
"""Characters that are logged of the beginning of a traceback, and as many of its end.

A message may have any size, and to search 50 MB for passwords takes ten seconds of the event loop.
"""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes of every record; all others came by `extra`."""
_OWN_LOGGERS: Final = frozenset({"dbjobq.worker", "dbjobq.cli", "dbjobq.schema"})
"""Loggers whose lines are dbjobq's own: the event tells which of them it was."""
_UNSAID: Final[Mapping[str, object]] = {"queue": "default", "attempt": 1}
"""Fields that are left out on a terminal if they have these values."""


def log_to_stderr(level: str, *, as_json: bool) -> None:
    """Send all loggers' lines of `level` and above to standard error, in place of what was set up before.

    Args:
        level: One of `LEVELS`.
        as_json: Whether each line is a JSON object. Otherwise lines are for people: whole ones in a file or a pipe,
            short ones on a terminal.
    """
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())  # some loggers, such as psycopg, have levels of their own
    handler.addFilter(name_job)
    if as_json:
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TerminalFormatter(handler.stream) if handler.stream.isatty() else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(traceback: str) -> str:
    """Return a traceback without the passwords that it quotes, as a job's error is stored; of a long one both ends."""
    left_out = len(traceback) - 2 * LONGEST_END
    if left_out <= 0:
        return without_passwords(traceback)
    first = without_passwords(traceback[: 2 * LONGEST_END])[:LONGEST_END]
    last = without_passwords(traceback[-2 * LONGEST_END :])[-LONGEST_END:]
    return f"{first}\n... {left_out:,} characters left out ...\n{last}"


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _shown(super().formatException(ei))


class _TextFormatter(_Formatter):
    """`2026-01-31T09:30:00.123Z INFO dbjobq.worker job.retry job_id=… delay=2.0`.

    Producers choose some of the logged text (names, errors). So nothing in it can move a terminal's cursor, turn the
    direction of writing, or look like another event's line. Tracebacks are indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = "".join(f" {printable(name)}={_word(value)}" for name, value in _extra(record).items())
        return f"{_time(record)} {record.levelname} {printable(record.name)} {printable(record.message)}{fields}"

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_text and not record.exc_info:  # another process has sent the traceback as text
            record.exc_text = _shown(record.exc_text)
        event, *trace = super().format(record).split("\n")
        return "\n".join([self._fit(event), *(f"  {printable(line)}" for line in trace)])

    def _fit(self, event: str) -> str:
        """Return an event's line as it is written to the stream."""
        return event


class _TerminalFormatter(_TextFormatter):
    """`09:30:00.123Z INFO job.retry shop.mail.send attempt=2 delay=2.0 job_id=…`, folded where the terminal ends.

    Left out are the date, the name of dbjobq's own loggers, the default queue and the first attempt. The job's type
    comes first, and its id, which people copy, last.

    Args:
        terminal: The stream that lines are written to.
    """

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = dict(_extra(record))
        job_type, job_id = fields.pop("job_type", None), fields.pop("job_id", None)
        fields = {name: value for name, value in fields.items() if _UNSAID.get(name) != value}
        if job_id is not None:
            fields["job_id"] = job_id
        said = "".join(f" {printable(name)}={_word(value)}" for name, value in fields.items())
        logger = "" if record.name in _OWN_LOGGERS else f"{printable(record.name)} "
        about = "" if job_type is None else f" {_word(job_type)}"
        return f"{_time(record)[11:]} {record.levelname} {logger}{printable(record.message)}{about}{said}"

    def _fit(self, event: str) -> str:
        try:
            columns = os.get_terminal_size(self._terminal.fileno()).columns
        except (OSError, ValueError):  # the stream is closed, or no terminal
            columns = 0
        return folded("", event, columns or TERMINAL_COLUMNS, indent=4)


class _JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, event, and what came by `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in _extra(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:  # another process has sent the traceback as text
            line["exception"] = _shown(record.exc_text)
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{record.msecs:03.0f}Z"


def _word(value: object) -> str:
    """Return a value as one word; with spaces or quotes in it as JSON text, in which printable letters stay."""
    text = str(value)
    if text.isprintable() and text and not any(c in text for c in ' "='):
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))
