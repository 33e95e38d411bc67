from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dbjobq.doctor import Finding
from tests.cli.support import invoke

if TYPE_CHECKING:
    from dbjobq import JobQueue

FINE = Finding("states", "ok", "each has one")
NOTICE = Finding("bloat", "notice", "ready is large", "reindex it")
WARNING = Finding("queues", "warning", "nobody serves 'mail'\x1b[2J", "start a worker")
CRITICAL = Finding("indexes", "critical", "one is missing", "make it")


@pytest.mark.parametrize(
    ("findings", "code"), [([FINE], 0), ([FINE, NOTICE], 0), ([WARNING, NOTICE], 3), ([WARNING, CRITICAL, FINE], 4)]
)
def test_the_exit_code_tells_the_worst(
    dsn: str, monkeypatch: pytest.MonkeyPatch, findings: list[Finding], code: int
) -> None:
    monkeypatch.setattr("dbjobq.doctor.examine", lambda *_: findings)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    assert invoke(dsn, "doctor").exit_code == invoke(dsn, "doctor", "--json").exit_code == code


def test_the_worst_comes_first_and_what_is_well_takes_one_line(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [FINE, NOTICE, WARNING, CRITICAL, Finding("schema", "ok", "")]
    monkeypatch.setattr("dbjobq.doctor.examine", lambda *_: findings)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    assert invoke(dsn, "doctor").stdout.splitlines() == [
        "CRITICAL  indexes: one is missing",
        "    make it",
        "WARNING  queues: nobody serves 'mail'\\x1b[2J",
        "    start a worker",
        "NOTICE  bloat: ready is large",
        "    reindex it",
        "ok: states, schema",
    ]


def test_json_has_every_finding_and_the_worst(dsn: str, queue: JobQueue) -> None:
    queue.enqueue("nowhere.f")
    told = json.loads(invoke(dsn, "doctor", "tests.support.handlers", "--json").stdout)
    assert told.keys() == {"worst", "findings"}
    assert {"schema", "server", "horizon", "pooler", "queues", "states"} <= {f["check"] for f in told["findings"]}
    (types,) = (f for f in told["findings"] if f["check"] == "job types")
    assert types["severity"] == "warning"
    assert "nowhere.f" in types["found"]


def test_missing_tables_are_critical(empty_dsn: str) -> None:
    result = invoke(empty_dsn, "doctor")
    assert result.exit_code == 4
    assert "CRITICAL  schema: there are no dbjobq tables" in result.stdout


def test_a_module_that_cannot_be_imported_is_one_line(dsn: str) -> None:
    result = invoke(dsn, "doctor", "no.such.module")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot import")
