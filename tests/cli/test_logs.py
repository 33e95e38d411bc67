from __future__ import annotations

import json
import logging
import os
import pty
import re
import termios
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING

import pytest

from dbjobq import Job
from dbjobq.cli.logs import log_to_stderr
from dbjobq.events.loggers import running_here, worker_log

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

log = logging.getLogger("dbjobq.test")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Undo what `log_to_stderr` does to the root logger."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_for_people_has_its_data_as_words(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", as_json=False)
    log.info("job.retry", extra={"delay": 2.5, "error": 'it said "no"', "empty": ""})
    log.debug("not.shown")
    (line,) = capsys.readouterr().err.splitlines()
    time, rest = line.split(" ", 1)
    assert rest == 'INFO dbjobq.test job.retry delay=2.5 error="it said \\"no\\"" empty=""'
    assert time.endswith("Z")


@contextmanager
def a_terminal() -> Generator[Callable[[], list[str]]]:
    """Have standard error be a terminal of 80 columns; tells what has been written there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", buffering=0) as reader:

        def said() -> list[str]:
            stream.write("\0")
            stream.flush()
            text = b""
            while not text.endswith(b"\0"):
                text += reader.read(1000)
            return text[:-1].decode().splitlines()

        with redirect_stderr(stream):
            yield said


def test_a_terminal_is_told_the_event_first_and_not_what_goes_without_saying() -> None:
    with a_terminal() as said:
        log_to_stderr("info", as_json=False)
        fields = {"job_id": "7", "job_type": "shop.mail", "queue": "default", "attempt": 1}
        worker_log.info("job.retry", extra=fields | {"delay": 2.5})
        worker_log.info("job.retry", extra=fields | {"queue": "mail", "attempt": 2})
        log.info("hello")
        times, rests = zip(*(line.split(" ", 1) for line in said()), strict=True)
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}Z", time) for time in times)
    assert rests == (
        "INFO job.retry shop.mail delay=2.5 job_id=7",
        "INFO job.retry shop.mail queue=mail attempt=2 job_id=7",
        "INFO dbjobq.test hello",
    )


def test_a_long_line_is_folded_between_words_where_the_terminal_ends() -> None:
    with a_terminal() as said:
        log_to_stderr("info", as_json=False)
        worker_log.warning("job.unknown", extra={"job_type": "shop.mail.send", "error": "what to do, at length. " * 12})
        first, *more = said()
    assert "WARNING job.unknown shop.mail.send error=" in first
    assert len(more) >= 3
    assert all(line.startswith("    ") for line in more)
    assert max(map(len, [first, *more])) <= 80
    assert " ".join([first, *map(str.strip, more)]).count("what to do, at length.") == 12


def test_a_line_break_in_a_value_does_not_make_a_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", as_json=False)
    log.info("job.retry", extra={"error": "one\ntwo"})
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "hidden", ["\x85", "\x9b2J", "\u202e", "\u2066", "\u2028", "\u2029", "\ud800", "\x1b[2J", "\r", "\n"]
)
def test_what_a_terminal_would_act_upon_is_written_as_an_escape(
    capsys: pytest.CaptureFixture[str], hidden: str
) -> None:
    log_to_stderr("info", as_json=False)
    text = f"one{hidden}two"
    try:
        raise ValueError(text)
    except ValueError:
        log.exception(text, extra={"error": text, text: "named"})
    said = capsys.readouterr().err
    event, *trace = said.split("\n")[:-1]
    assert said.replace("\n", "").isprintable()
    assert event.count("\\") == 3
    assert all(line.startswith("  ") for line in trace)
    assert trace[0] == "  Traceback (most recent call last):"


def test_letters_of_any_script_are_written_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", as_json=False)
    log.info("größe", extra={"queue": "größe", "error": "日本 שלום"})
    assert capsys.readouterr().err.endswith(' größe queue=größe error="日本 שלום"\n')


def test_a_line_of_json_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("WARNING", as_json=True)
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("slot.%s", "broken", extra={"where": {1}, "level": "kept out"})
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "slot.broken"
    assert (line["level"], line["logger"], line["where"]) == ("error", "dbjobq.test", "{1}")
    assert line["exception"].endswith("ValueError: no")


def test_a_line_that_a_job_logs_by_any_logger_names_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", as_json=True)
    job = Job(id="7", type="shop.mail", queue="mail", attempts=1)
    running_here.set(lambda: job)
    log.info("sent")
    log.info("of another", extra={"job_id": "8"})
    running_here.set(None)
    log.info("outside")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    named = {name: lines[0].get(name) for name in ("job_id", "job_type", "queue", "attempt")}
    assert named == {"job_id": "7", "job_type": "shop.mail", "queue": "mail", "attempt": 2}
    assert [line.get("job_id") for line in lines] == ["7", "8", None]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dead_letters_traceback_has_no_password(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    log_to_stderr("info", as_json=as_json)
    try:
        raise ValueError("postgresql://me:secret@host/db")
    except ValueError:
        log.exception("job.failed")
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ValueError" in said
    assert "secret" not in said


@pytest.mark.parametrize("as_json", [True, False])
def test_of_a_huge_traceback_both_ends_are_logged(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    log_to_stderr("info", as_json=as_json)
    try:
        raise ValueError("begin" + "x" * 1_000_000 + "end")
    except ValueError:
        log.exception("job.failed")
    said = capsys.readouterr().err
    assert all(part in said for part in ("Traceback", "ValueError: beginxxx", "characters left out", "xxxend"))
    assert len(said) < 40_000


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_from_another_process_has_no_password(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    log_to_stderr("info", as_json=as_json)
    error = "ValueError: postgresql://me:secret@host/db"
    log.handle(logging.makeLogRecord({"name": log.name, "levelno": 40, "msg": "caught", "exc_text": error}))
    said = capsys.readouterr().err
    assert "ValueError: postgresql://me:***@host/db" in said
