"""How a worker process logs: one line an event on standard error, for people or as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from dbjobq.cli.output import printable
from dbjobq.events.loggers import name_job
from dbjobq.redact import without_passwords

__all__ = ["LEVELS", "log_to_stderr"]

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else came by `extra`."""


def log_to_stderr(level: str, *, as_json: bool) -> None:
    """Send all loggers' lines of `level` and above to standard error, in place of what was set up before."""
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())  # some loggers, such as psycopg, have levels of their own
    handler.addFilter(name_job)
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback without the passwords that it quotes, as the job's error is stored."""
        return without_passwords(super().formatException(ei))


class _TextFormatter(_Formatter):
    """`2026-01-31T09:30:00.123Z INFO dbjobq.worker job.retry job_id=… delay=2.0`.

    Whoever enqueues a job has a say in what is logged of it: nothing that comes from there can move a terminal's
    cursor, turn the direction of what follows, or look like another event's line. Tracebacks are indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = "".join(f" {printable(name)}={_word(value)}" for name, value in _extra(record).items())
        return f"{_time(record)} {record.levelname} {printable(record.name)} {printable(record.message)}{fields}"

    def format(self, record: logging.LogRecord) -> str:
        event, *trace = super().format(record).split("\n")
        return "\n".join([event, *(f"  {printable(line)}" for line in trace)])


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
        elif record.exc_text:  # of another process, which has no other form of it
            line["exception"] = record.exc_text
        return json.dumps(line, default=str)


def _time(record: logging.LogRecord) -> str:
    return f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S}.{record.msecs:03.0f}Z"


def _word(value: object) -> str:
    """Return a value as one word; what has spaces or quotes in it as JSON, but for printable letters."""
    text = str(value)
    if text.isprintable() and text and not any(c in text for c in ' "='):
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))
