"""What a handler's exception quotes of a DSN is stored without its password."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, job
from dbjobq.attempt.describe import MAX_ERROR, describe
from dbjobq.attempt.outcome import failed_with
from tests.unit.test_retry import CLAIM

PASSWORD_LETTERS = st.sampled_from("aZ0 '\"\\/@:?#&=%,;<>(){}[]$~-_.ü€")


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


def as_url(password: str) -> str:
    return f"postgresql://app:{password}@db:5432/app"


FORMS: dict[str, Callable[[str], str]] = {
    "libpq's own form": lambda p: make_conninfo(host="db", password=p, user="app"),
    "of a client key": lambda p: make_conninfo(sslpassword=p, sslkey="k"),
    "a URL": lambda p: as_url(quote(p, safe="")),
    "a URL as it should not be": as_url,
    "a URL with a name of a tenant": lambda p: f"postgresql://app@tenant:{quote(p, safe='')}@db/app",
    "a URL's option": lambda p: f"postgresql://db/app?user=app&password={quote(p, safe='')}&sslmode=require",
    "a URL as an option of another": lambda p: f"https://x/?dsn={quote(as_url(quote(p, safe='')), safe='')}&y=1",
    "a token in a URL": lambda p: f"https://x/?id=1&access_token={quote(p, safe='')}&y=1",
    "JSON": lambda p: json.dumps({"user": "app", "password": p, "db": "x"}),
    "JSON in JSON": lambda p: json.dumps(json.dumps({"password": p, "db": "x"})),
    "JSON in JSON in JSON": lambda p: json.dumps(json.dumps(json.dumps({"password": p, "db": "x"}))),
    "a dict": lambda p: repr({"user": "app", "password": p, "db": "x"}),
    "a dict of bytes": lambda p: repr({b"password": p.encode(), b"db": b"x"}),
    "pairs": lambda p: repr([("user", "app"), ("password", p)]),
    "arguments": lambda p: f"connect(host='db', password={p!r}, port=5432)",
    "the environment": lambda p: repr({"PATH": "/bin", "PGPASSWORD": p}),
    "SQL": lambda p: f"alter role app password {sql.Literal(p).as_string()} nologin",
    "a header": lambda p: f"Authorization: Bearer {quote(p, safe='')}",
    "a list of words": lambda p: repr(["psql", "--password", p, "--db=x"]),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40)
@given(st.text(PASSWORD_LETTERS, max_size=8), st.text(PASSWORD_LETTERS, max_size=8))
def test_whatever_a_password_consists_of_it_is_left_out(form: str, before: str, after: str) -> None:
    password = f"{before}hunter2{after}"
    if form == "a URL as it should not be":
        assume(" " not in password and not re.match(r"\d{1,5}[^\w@]", password))
    text = FORMS[form](password)
    assert "hunter2" in text
    kept = failed_with(CLAIM, f"before {text} after").error or ""
    assert "hunter2" not in kept
    assert kept.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "passwd=hunter2",
        "Server=x;Pwd=hunter2;",
        "sslpassword=hunter2",
        r"password=hunt\ hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "password: hunter2",
        "password := 'hunter2'",
        "psql --password hunter2",
        "postgresql://app:hunter2\n@db/x",
        "postgresql://app:my hunter2@db/x",
        "https://hunter2@host/x",
        "<password>hunter2</password>",
        "host=db password='it is hunter2 and the end is mis",
        "Bearer hunter2hunter2hunter2hunter2",
        'missing "=" after "hunter2" in connection info string',
        'could not translate host name "hunter2@db" to address',
        "https://db:5432/?Action=connect&X-Amz-Signature=hunter2",
    ],
)
def test_a_password_in_another_form_is_left_out(text: str) -> None:
    assert "hunter2" not in (failed_with(CLAIM, text).error or "")


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
        ("redis://cache:6379 is down, ask ann@example.com", None),
        ("no route to http://[::1]:8080/@ann", None),
        ('unexpected token "}" at 7, Token "a" is invalid', None),
        ("KeyError: 'password'", None),
        ("a password is needed", None),
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
    for hostile in ("://a:", "://a: b c", "password='\\", "password=", "?token=", "%3A%2F%2Fa%3A", "eyJ", "a-", "\\"):
        describe(ValueError(hostile * 1_000_000))
