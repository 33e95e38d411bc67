"""What a handler's exception quotes of a DSN is stored without its password."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from dbjobq import JobQueue, job
from dbjobq.attempt import MAX_ERROR, describe, failed_with
from tests.unit.test_retry import CLAIM


@job(name="secrets.url", max_retries=0)
def url() -> None:
    psycopg.connect("postgresql://app:hunter2@127.0.0.1:1/app")


@job(name="secrets.broken", max_retries=0)
def broken() -> None:
    psycopg.connect("postgresql://app:hunter2@127.0.0.1:port/app")


@job(name="secrets.words", max_retries=0)
def words() -> None:
    psycopg.connect("host=127.0.0.1 port=1 user=app password='it is hunter2'")


@job(name="secrets.keyword", max_retries=0)
def keyword() -> None:
    psycopg.connect(host="127.0.0.1", port=1, password="hunter2")


@job(name="secrets.quoted", max_retries=0)
def quoted() -> None:
    dsn = "postgresql://app:hunter2@db/app"
    raise ValueError(f"cannot reach {dsn}")


@pytest.mark.parametrize("handler", [url, broken, words, keyword, quoted])
def test_a_password_in_a_failing_connection_is_not_stored(queue: JobQueue, handler: Callable[[], None]) -> None:
    job_id = queue.enqueue(handler)
    dequeued = queue.dequeue()
    assert dequeued is not None
    queue.execute_job(dequeued)
    failed = queue.get_job(job_id)
    assert failed is not None
    assert failed.error is not None
    assert "hunter2" not in failed.error
    assert "***" in failed.error
    assert "Traceback" in failed.error


def test_an_error_that_is_handed_over_is_treated_alike() -> None:
    assert failed_with(CLAIM, "no answer from postgresql://app:hunter2@db/app").error == (
        "no answer from postgresql://app:***@db/app"
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://app:p@ss@db:5432/app", "postgresql://app:***@db:5432/app"),
        ("postgresql+psycopg://:hunter2@/app", "postgresql+psycopg://:***@/app"),
        ("redis://:hunter2@cache and http://a:b@c", "redis://:***@cache and http://a:***@c"),
        ("db?user=a&password=hunter2&sslmode=off", "db?user=a&password=***&sslmode=off"),
        ("host=db PGPASSWORD = hunter2 x", "host=db PGPASSWORD = *** x"),
        (r"password='a\'b c' user=x", "password=*** user=x"),
        ("{'user': 'a', 'password': 'hunter2'}", "{'user': 'a', 'password': ***}"),
        ('{"password": "hunter2"}', '{"password": ***}'),
        ("password authentication failed for user 'app'", "password authentication failed for user 'app'"),
        ("http://host:8080/path?x=a@b", "http://host:8080/path?x=a@b"),
        ("see https://example.com/@user: or mail ann@example.com", None),
    ],
)
def test_only_passwords_are_left_out(text: str, kept: str | None) -> None:
    assert failed_with(CLAIM, text).error == (kept or text)


def test_a_long_error_is_cut_after_its_passwords_are_left_out() -> None:
    for before in range(MAX_ERROR - 60, MAX_ERROR):
        url = "x" * before + " postgresql://app:hunter2@db " + "y" * before
        assert "hunter" not in describe(ValueError(url))
        assert "hunter" not in (failed_with(CLAIM, url).error or "")


def test_it_takes_no_time_on_a_hostile_message() -> None:
    describe(ValueError("://a:" * 1_000_000))
    describe(ValueError("password='" + "\\" * 1_000_000))
