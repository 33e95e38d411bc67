from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dbjobq.doctor import Finding
from tests.cli.support import invoke, on_a_terminal

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
        "ok: schema, states",
    ]


def test_what_is_nearest_to_the_jobs_comes_first(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = ["settings", "bloat", "queues", "rights", "states", "never heard of"]
    findings = [Finding(check, "notice", "x") for check in checks]
    monkeypatch.setattr("dbjobq.doctor.examine", lambda *_: findings)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    told = json.loads(invoke(dsn, "doctor", "--json").stdout)
    said = [finding["check"] for finding in told["findings"]]
    assert said == ["states", "queues", "bloat", "settings", "rights", "never heard of"]
    lines = invoke(dsn, "doctor").stdout.splitlines()
    assert [line.removeprefix("NOTICE  ").removesuffix(": x") for line in lines] == said


def test_it_breaks_no_word_at_80_columns(dsn: str) -> None:
    said = on_a_terminal(dsn, 80, "doctor", code=None)
    assert max(map(len, said)) <= 80
    assert " ".join(" ".join(said).split()) == " ".join(invoke(dsn, "doctor").stdout.split())


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
