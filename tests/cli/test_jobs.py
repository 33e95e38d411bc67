# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbjobq import PostgresStorage
from tests.cli.support import invoke, on_a_terminal

if TYPE_CHECKING:
    from dbjobq import JobQueue

UNKNOWN = "0190f3a0-0000-7000-8000-000000000009"


def listed(dsn: str, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(invoke(dsn, "jobs", "list", "--json", *args).stdout)
    return found


def fail_one(
    queue: JobQueue, name: str = "app.fails", error: str = "ValueError: no\n\ntraceback", on: str = "default"
) -> str:
    job_id = queue.options(max_retries=0, queue=on).enqueue(name)
    job = queue.dequeue(on)
    assert job is not None
    assert job.id == job_id
    queue.fail(job, error)
    return job_id


def test_it_lists_the_newest_first(dsn: str, queue: JobQueue) -> None:
    ids = queue.enqueue_many("app.send", [{"n": n} for n in range(3)])
    assert [job["id"] for job in listed(dsn)] == ids[::-1]
    assert [job["id"] for job in listed(dsn, "--limit=2")] == ids[:0:-1]


def test_it_lists_what_is_asked_for(dsn: str, queue: JobQueue) -> None:
    queue.enqueue("app.send")
    mail = queue.options(queue="mail").enqueue("app.other")
    failed = fail_one(queue, on="failing")
    assert [job["id"] for job in listed(dsn, "--queue=mail")] == [mail]
    assert [job["id"] for job in listed(dsn, "--type=app.other", "--status=pending")] == [mail]
    assert [job["id"] for job in listed(dsn, "--status=failed")] == [failed]
    assert listed(dsn, "--status=running") == []


def test_the_table_has_one_line_a_job_whatever_the_names_hold(dsn: str, queue: JobQueue) -> None:
    fail_one(queue, "app.\x1b[2J\nevil", "E: " + "x" * 500)
    lines = invoke(dsn, "jobs", "list").stdout.splitlines()
    assert len(lines) == 2
    assert "app.\\x1b[2J\\nevil" in lines[1]
    assert lines[1].endswith("x…")


@pytest.mark.parametrize(
    "args",
    [
        ["list", "--limit", "99999999999999999999"],
        ["list", "--queue", "\udcff"],
        ["list", "--type", "\udcff"],
        ["list", "--queue", ""],
        ["retry", "--all-failed", "--type", "\udcff"],
        ["retry", "--delay", "nan", UNKNOWN],
        ["retry", "--delay", "1e300", UNKNOWN],
    ],
    ids=ascii,
)
def test_what_is_out_of_range_is_a_wrong_call(dsn: str, args: list[str]) -> None:
    result = invoke(dsn, "jobs", *args)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_no_jobs_are_no_lines(dsn: str) -> None:
    result = invoke(dsn, "jobs", "list")
    assert (result.stdout, result.exit_code) == ("", 0)


def test_an_unknown_status_is_a_wrong_call(dsn: str) -> None:
    assert invoke(dsn, "jobs", "list", "--status=done").exit_code == 2


def test_it_shows_all_of_a_job(dsn: str, queue: JobQueue) -> None:
    job_id = queue.enqueue("app.send", to="ann")
    job = queue.dequeue()
    assert job is not None
    queue.complete(job, {"sent": 1})
    shown = invoke(dsn, "jobs", "show", job_id)
    assert shown.exit_code == 0
    assert '{"to": "ann"}' in shown.stdout
    assert '{"sent": 1}' in shown.stdout
    known = json.loads(invoke(dsn, "jobs", "show", job_id, "--json").stdout)
    assert (known["status"], known["result"], known["data"]) == ("completed", {"sent": 1}, {"to": "ann"})
    assert known["finished_at"].endswith("+00:00")


def test_it_shows_the_traceback_of_a_failed_job(dsn: str, queue: JobQueue) -> None:
    shown = invoke(dsn, "jobs", "show", fail_one(queue, error="ValueError: no\n\nTrace\x1b"))
    assert shown.stdout.endswith("  ValueError: no\n\n  Trace\\x1b\n")


@pytest.mark.parametrize("job_id", [UNKNOWN, "nonsense"])
def test_an_unknown_job_is_one_line(dsn: str, job_id: str) -> None:
    for command in ("show", "retry", "cancel"):
        result = invoke(dsn, "jobs", command, job_id)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: no job has the id '{job_id}'")
        assert result.stderr.count("\n") == 1


def test_it_retries_jobs_by_their_ids(dsn: str, queue: JobQueue) -> None:
    ids = [fail_one(queue), fail_one(queue)]
    result = invoke(dsn, "jobs", "retry", *ids)
    assert (result.exit_code, result.stdout) == (0, "".join(f"retried {job_id}\n" for job_id in ids))
    assert queue.count("pending") == 2


def test_it_retries_with_a_delay(dsn: str, queue: JobQueue) -> None:
    invoke(dsn, "jobs", "retry", fail_one(queue), "--delay=60")
    assert queue.dequeue() is None


def test_it_retries_all_failed_jobs_of_a_type(dsn: str, queue: JobQueue) -> None:
    kept, retried = fail_one(queue, "app.keep"), fail_one(queue, "app.retry")
    result = invoke(dsn, "jobs", "retry", "--all-failed", "--type=app.retry", "--json")
    assert json.loads(result.stdout) == {"found": 1, "retried": 1}
    assert [job.id for job in queue.get_pending_jobs()] == [retried]
    assert [job.id for job in queue.get_failed_jobs()] == [kept]
    assert invoke(dsn, "jobs", "retry", "--all-failed", "--queue=empty").stdout == "no jobs to be retried\n"


@pytest.mark.parametrize("args", [[], ["--all-failed", UNKNOWN], [UNKNOWN, "--queue=mail"]])
def test_retry_wants_ids_or_all(dsn: str, args: list[str]) -> None:
    assert invoke(dsn, "jobs", "retry", *args).exit_code == 2


def test_one_that_cannot_be_had_does_not_keep_the_others(dsn: str, queue: JobQueue) -> None:
    job_id = queue.enqueue("app.send")
    result = invoke(dsn, "jobs", "cancel", UNKNOWN, job_id, job_id)
    assert result.exit_code == 1
    assert result.stdout == f"cancelled {job_id}\n"
    assert result.stderr.splitlines()[1] == f"Error: job {job_id} is cancelled: nothing was changed"
    assert queue.count("cancelled") == 1


def test_a_completed_job_is_not_retried(dsn: str, queue: JobQueue) -> None:
    job_id = queue.enqueue("app.send")
    job = queue.dequeue()
    assert job is not None
    queue.complete(job)
    result = invoke(dsn, "jobs", "retry", job_id)
    assert result.exit_code == 1
    assert "is completed: nothing was changed" in result.stderr


def test_it_cancels_all_that_are_meant_once_it_is_told_to(dsn: str, queue: JobQueue) -> None:
    mail = queue.enqueue_many("app.mail", [{} for _ in range(2100)])
    other = queue.enqueue("app.other")
    asked = invoke(dsn, "jobs", "cancel", "--all", "--type=app.mail", stdin="n\n")
    assert asked.exit_code == 1
    assert "Cancel 2,100 jobs? [y/N]" in asked.stderr
    assert queue.count("pending") == 2101
    done = invoke(dsn, "jobs", "cancel", "--all", "--type=app.mail", stdin="y\n")
    assert (done.exit_code, done.stdout) == (0, "cancelled 2,100 jobs\n")
    assert queue.count("cancelled") == len(mail)
    assert [job.id for job in queue.get_pending_jobs()] == [other]
    assert invoke(dsn, "jobs", "cancel", "--all", "--status=running", "--yes").stdout == "no jobs to be cancelled\n"
    done = invoke(dsn, "jobs", "cancel", "--all", "--yes", "--json")
    assert json.loads(done.stdout) == {"found": 1, "cancelled": 1}


def test_what_somebody_is_just_moving_is_not_waited_for(dsn: str, queue: JobQueue) -> None:
    """An exchange that was cut off half-sent holds its jobs for as long as the server waits for its end."""
    ids = [queue.enqueue("app.send", n=n) for n in range(4)]
    assert queue.dequeue() is not None
    with psycopg.connect(dsn) as exchange:
        exchange.execute("select from dbjobq.lease for update")
        exchange.execute("select from dbjobq.ready limit 1 for update")
        assert queue.storage.cancel_many(ids).run() == 2
    assert queue.storage.cancel_many(ids).run() == 2


@pytest.mark.parametrize("args", [[], ["--all", UNKNOWN], [UNKNOWN, "--queue=mail"], [UNKNOWN, "--status=running"]])
def test_cancel_wants_ids_or_all(dsn: str, args: list[str]) -> None:
    assert invoke(dsn, "jobs", "cancel", *args).exit_code == 2


def test_all_failed_jobs_are_retried_without_their_bodies_by_the_thousand(
    dsn: str, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = queue.enqueue_many("app.send", [{"n": "x" * 1000} for _ in range(2500)])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from dbjobq.ready")
        connection.execute("insert into dbjobq.done (attempts, status, job_id) select 1, 3, id from dbjobq.job")
    sent: list[str] = []
    send = PostgresStorage._send

    def counted(self: PostgresStorage, name: str, *args: Any, **how: Any) -> Any:
        sent.append(name)
        return send(self, name, *args, **how)

    monkeypatch.setattr(PostgresStorage, "_send", counted)
    result = invoke(dsn, "jobs", "retry", "--all-failed")
    assert result.stdout == "retried 2,500 jobs\n"
    assert queue.count("pending") == len(ids)
    assert sent.count("retry_many") == 3
    assert sent.count("search_failed") == 1
    assert set(sent) == {"version", "search_failed", "retry_many", "queue_stats"}


def test_a_list_brings_no_large_bodies_and_says_what_it_left_out(dsn: str, queue: JobQueue) -> None:
    """A list for people needs no arguments; one for programs has 16 MiB of them."""
    ids = [queue.enqueue("app.send", n="x" * 7_000_000) for _ in range(4)][::-1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(invoke(dsn, "jobs", "list").stdout.splitlines()) == 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 7_000
    told = invoke(dsn, "jobs", "list", "--json")
    assert [job["id"] for job in json.loads(told.stdout)] == ids[:3]
    assert "only the newest 3 are shown" in told.stderr


def test_a_list_that_searched_no_further_says_so(dsn: str, queue: JobQueue) -> None:
    old = queue.enqueue("app.rare")
    queue.enqueue_many("app.send", [{} for _ in range(3)])
    result = invoke(dsn, "jobs", "list", "--type=app.rare", "--search=3")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == "only the newest 3 jobs were searched: --search looks at more\n"
    assert [job["id"] for job in listed(dsn, "--type=app.rare", "--search=4")] == [old]


def test_it_shows_the_error_of_every_attempt(dsn: str, queue: JobQueue) -> None:
    job_id = queue.enqueue("app.send", max_retries=3)
    for number in range(3):
        job = queue.dequeue()
        assert job is not None
        queue.fail(job, f"ValueError: no. {number}\n\ntraceback")
        queue.cancel(job_id)
        queue.retry(job_id)
    with psycopg.connect(dsn, autocommit=True) as connection:  # as if it had not been revived between them
        connection.execute("update dbjobq.failure set attempts = 1 + right(split_part(error, E'\\n', 1), 1)::int")
    shown = invoke(dsn, "jobs", "show", job_id).stdout
    errors = [line for line in shown.splitlines() if "ValueError" in line or line.startswith("attempt ")]
    assert [line.strip().partition(",")[0] for line in errors] == [
        "attempt 1",
        "ValueError: no. 0",
        "attempt 2",
        "ValueError: no. 1",
        "attempt 3",
        "ValueError: no. 2",
    ]
    known = json.loads(invoke(dsn, "jobs", "show", job_id, "--json").stdout)
    assert [failure["attempt"] for failure in known["failures"]] == [1, 2, 3]
    assert known["failures"][0]["error"].startswith("ValueError: no. 0")


def test_large_arguments_are_shown_in_part(dsn: str, queue: JobQueue) -> None:
    job_id = queue.enqueue("app.send", n="x" * 100_000)
    shown = invoke(dsn, "jobs", "show", job_id).stdout
    assert len(shown) < 6_000
    assert "100,009 characters; --json prints all" in shown


@pytest.mark.parametrize("columns", [80, *(pytest.param(more, marks=pytest.mark.slow) for more in (100, 132))])
def test_a_list_fits_the_terminal(dsn: str, queue: JobQueue, columns: int) -> None:
    """Each job is a line, and its error one below it; `--wide` has all columns, as files and pipes do."""
    job_id = fail_one(queue, "app." + "long" * 20, "ValueError: " + "word " * 50)
    queue.options(delay=60).enqueue("app.send")
    said = on_a_terminal(dsn, columns, "jobs", "list")
    assert max(map(len, said)) <= columns
    assert len(said) == 4
    assert said[2].startswith(f"{job_id}  failed     app.long")
    assert said[3].startswith("    ValueError: word")
    assert "priority" in on_a_terminal(dsn, columns, "jobs", "list", "--wide")[0]
