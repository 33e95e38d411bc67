from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import pytest

from dbjobq.cli.commands.enqueue import arguments_of
from tests.cli.support import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from dbjobq import JobQueue

OWN_ID = "0190f3a0-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], {}),
        (["to=ann", "n=2", "x=1.5", "ok=true", "none=null"], {"to": "ann", "n": 2, "x": 1.5, "ok": True, "none": None}),
        (['n="2"', "empty=", "url=a=b"], {"n": "2", "empty": "", "url": "a=b"}),
        (['{"a": [1, {"b": null}]}', "c=[2]"], {"a": [1, {"b": None}], "c": [2]}),
    ],
)
def test_arguments_are_json_or_pairs(words: list[str], arguments: dict[str, Any]) -> None:
    assert arguments_of(words) == arguments


@pytest.mark.parametrize("words", [["ann"], ["=1"], ["{"], ["a=1", "a=2"], ["a=1", '{"a": 1}']])
def test_other_words_are_a_wrong_call(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        arguments_of(words)


def test_it_prints_the_id_of_the_job(dsn: str, queue: JobQueue) -> None:
    job_id = invoke(dsn, "enqueue", "app.send", "to=ann", "n=2").stdout.strip()
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.type, job.data, job.queue, job.priority) == ("app.send", {"to": "ann", "n": 2}, "default", 5)


def test_options_are_the_job_s(dsn: str, queue: JobQueue) -> None:
    options = "--queue mail --priority -3 --max-retries 0 --timeout 2.5 --at 2040-01-31T09:30+01:00"
    printed = invoke(dsn, "enqueue", "app.send", *options.split(), "--id", OWN_ID, "--json")
    assert json.loads(printed.stdout) == {"id": OWN_ID}
    job = queue.get_job(OWN_ID)
    assert job is not None
    assert (job.queue, job.priority, job.max_retries) == ("mail", -3, 0)
    assert job.execute_at == datetime(2040, 1, 31, 8, 30, tzinfo=UTC)


def test_the_same_id_again_changes_nothing(dsn: str, queue: JobQueue) -> None:
    for _ in range(2):
        assert invoke(dsn, "enqueue", "app.send", "--id", OWN_ID).stdout.strip() == OWN_ID
    assert queue.count() == 1


def test_a_unique_key_s_holder_is_printed_instead(dsn: str, queue: JobQueue) -> None:
    first, second = (invoke(dsn, "enqueue", "app.send", "--unique-key=k", "--delay=60").stdout for _ in range(2))
    assert first == second
    assert queue.count("pending") == 1


@pytest.mark.parametrize(
    "args",
    [
        ["--priority", "99999999999"],
        ["--delay", "-1"],
        ["--delay", "1", "--at", "2040-01-01"],
        ["--at", "tomorrow"],
        ["--id", "nope"],
        ["--queue", ""],
        ["n=NaN"],
        ["n=" + "9" * 5000],
        ["x=" + "[" * 100_000],
        ["x=" + "[" * 100_000 + "]" * 100_000],
        ['{"x": ' + "[" * 100_000],
        ["--delay", "nan"],
        ["--delay", "1e300"],
        ["--timeout", "inf"],
        ["--queue", "\udcff"],
        ["--unique-key", "\udcff"],
    ],
    ids=lambda args: " ".join(args)[:20],
)
def test_what_is_out_of_range_is_a_wrong_call(dsn: str, queue: JobQueue, args: list[str]) -> None:
    result = invoke(dsn, "enqueue", "app.send", *args)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert queue.count() == 0


def test_an_imported_function_s_options_and_arguments_count(
    dsn: str, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cli_enqueued.py").write_text(
        "from dbjobq import job\n@job(queue='mail', max_retries=7)\ndef send(to): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    wrong = invoke(dsn, "enqueue", "cli_enqueued.send", "too=ann", "--import", "cli_enqueued")
    assert wrong.exit_code == 2
    assert "'to'" in wrong.stderr
    job = queue.get_job(invoke(dsn, "enqueue", "cli_enqueued.send", "to=ann", "--import=cli_enqueued").stdout.strip())
    assert job is not None
    assert (job.queue, job.max_retries) == ("mail", 7)
