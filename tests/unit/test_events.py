"""The table of events: what every emission may say, and what it costs that nobody hears."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dbjobq
from dbjobq.events import names
from dbjobq.events.bus import Event, emit
from dbjobq.events.names import EVENTS, FIELDS

PACKAGE = Path(dbjobq.__file__).parent
TABLE = PACKAGE / "events"
CONSTANTS = {name: event for name, event in vars(names).items() if isinstance(event, Event)}
FAMILIES = {name.partition(".")[0] for name in EVENTS}
OURS = {"quietly", "exception"}
JOB = {"job_id", "job_type", "queue", "attempt"}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def emissions() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in sources():
        if TABLE in path.parents:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit":
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_no_name_of_an_event_stands_outside_the_table() -> None:
    looks_like_one = re.compile(rf"({'|'.join(FAMILIES)})\.[a-z_]+")
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for path, tree in sources()
        if TABLE not in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and looks_like_one.fullmatch(node.value)
    ]
    assert found == []


def test_nothing_is_logged_but_by_events() -> None:
    """Handlers' own lines are: `ctx.logger` is theirs."""
    methods = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node.func)}"
        for path, tree in sources()
        if TABLE not in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in methods
        and re.search(r"log(ger)?$", ast.unparse(node.func.value))
    ]
    assert found == []


def test_every_emission_says_what_its_event_does() -> None:
    """No field is missing, none is more, and what is about a job names it."""
    wrong: list[str] = []
    told: set[str] = set()
    for where, call in emissions():
        given = {keyword.arg for keyword in call.keywords}
        if None in given or not call.args:
            wrong.append(f"{where}: its fields cannot be read here")
            continue
        for event in events_of(call.args[0]):
            told.add(event.name)
            fields = set(event.fields)
            if not fields - event.optional <= given - OURS <= fields:
                wrong.append(f"{where}: {event.name} has {sorted(fields)}, not {sorted(map(str, given))}")
            if ("quietly" in given) > (event.quiet is not None):
                wrong.append(f"{where}: {event.name} has one level")
            if event.job != "perhaps" and (len(call.args) == 2) != (event.job == "yes"):
                wrong.append(f"{where}: {event.name} must name its job, or none")
    assert wrong == []
    assert told == set(EVENTS)


def events_of(node: ast.expr) -> list[Event]:
    """The events that an expression may be: one, one of two, or (a parameter) any with that parameter's fields."""
    if isinstance(node, ast.IfExp):
        return [*events_of(node.body), *events_of(node.orelse)]
    assert isinstance(node, ast.Name)
    if node.id in CONSTANTS:
        return [CONSTANTS[node.id]]
    return [names.DATABASE_LOST, names.DATABASE_REFUSES, names.DATABASE_UNAVAILABLE]  # Poller._trouble


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_says_all_of_itself(event: Event) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", event.name)
    assert {name for name, other in CONSTANTS.items() if other is event} == {event.name.replace(".", "_").upper()}
    assert event.optional <= set(event.fields)
    assert set(event.fields) <= set(FIELDS)
    assert not set(event.fields) & set(vars(logging.makeLogRecord({})))  # what `extra` must not have
    assert event.quiet is None or event.quiet < event.level
    assert (event.quiet is None) == (not event.quiet_when)
    for sentence in (event.says, event.do):
        assert sentence[0] == "`" or sentence[0].isupper()
        assert sentence.endswith(".")


def test_every_field_is_some_events() -> None:
    assert {field for event in EVENTS.values() for field in event.fields} | JOB == set(FIELDS)


def test_a_logger_that_was_disabled_is_heard_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("dbjobq.worker").disabled = True
    emit(names.DATABASE_RESTORED)
    assert caplog.messages == ["database.restored"]


def test_an_event_that_nobody_hears_costs_a_look_at_a_level(caplog: pytest.LogCaptureFixture) -> None:
    """Neither is its job looked at, nor a line made."""
    caplog.set_level(logging.WARNING, "dbjobq")
    unread: Any = object()
    emit(names.JOB_STARTED, unread)
    emit(names.JOB_CANCELLED, unread)
    with pytest.raises(AttributeError):
        emit(names.JOB_RESCUED, unread)


def test_a_line_has_the_place_that_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    emit(names.WORKER_STARTED, worker="w")
    (record,) = caplog.records
    assert (record.funcName, record.name, vars(record)["worker"]) == (
        "test_a_line_has_the_place_that_tells_it",
        "dbjobq.worker",
        "w",
    )
