"""What cannot be a job is refused with an error that names it, and nothing is stored."""

from __future__ import annotations

import decimal
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dbjobq import BaseStorage, JobQueue, PostgresStorage
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage
from tests.queue.jobs import anything, look, report, send_email
from tests.storage.backstage import backstage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import Databases

pytestmark = pytest.mark.every_storage

NAN, INF = float("nan"), float("inf")


def positional_only(a: int, /) -> int:
    return a


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


class Callback:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"priority": 2**31}, ValueError, "priority=2147483648"),
    ({"priority": -(2**31) - 1}, ValueError, "priority=-2147483649"),
    ({"priority": 1.0}, TypeError, "priority=1.0"),
    ({"priority": "5"}, TypeError, "priority='5'"),
    ({"priority": True}, TypeError, "priority=True"),
    ({"max_retries": -1}, ValueError, "max_retries=-1"),
    ({"max_retries": 2**31}, ValueError, "max_retries"),
    ({"max_retries": 1.5}, TypeError, "max_retries=1.5"),
    ({"execute_at": "2026-01-01"}, TypeError, "execute_at='2026-01-01'"),
    ({"execute_at": 1_800_000_000}, TypeError, "execute_at"),
    ({"execute_at": date(2030, 1, 1)}, TypeError, "execute_at"),
    ({"execute_at": timedelta(1)}, TypeError, "execute_at"),
    ({"execute_at": datetime.min}, ValueError, "execute_at"),  # noqa: DTZ901 - naive is the point
]
MORE_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    *OPTIONS,
    ({"delay": -1}, ValueError, "delay=-1"),
    ({"delay": timedelta(seconds=-1)}, ValueError, "delay=-1"),
    ({"delay": NAN}, ValueError, "delay=nan"),
    ({"delay": INF}, ValueError, "delay=inf"),
    ({"delay": 10**400}, ValueError, "delay"),
    ({"delay": timedelta.max}, ValueError, "delay"),
    ({"delay": "5"}, TypeError, "delay='5'"),
    ({"delay": decimal.Decimal(5)}, TypeError, "delay"),
    ({"delay": False}, TypeError, "delay=False"),
    ({"delay": 1, "execute_at": datetime(2050, 1, 1, tzinfo=UTC)}, ValueError, "delay and execute_at"),
    ({"timeout": 0}, ValueError, "timeout=0"),
    ({"timeout": -0.5}, ValueError, "timeout=-0.5"),
    ({"timeout": NAN}, ValueError, "timeout=nan"),
    ({"timeout": timedelta(1)}, TypeError, "timeout"),
    ({"queue": ""}, ValueError, "queue=''"),
    ({"queue": "x" * 201}, ValueError, "201"),
    ({"queue": "a\x00b"}, ValueError, "NUL"),
    ({"queue": "\ud800"}, ValueError, "surrogate"),
    ({"queue": b"mail"}, TypeError, "queue=b'mail'"),
    ({"queue": 5}, TypeError, "queue=5"),
    ({"unique_key": ""}, ValueError, "unique_key=''"),
    ({"unique_key": "x" * 501}, ValueError, "501"),
    ({"unique_key": "\x00"}, ValueError, "NUL"),
    ({"unique_key": "a\udfff"}, ValueError, "surrogate"),
    ({"unique_key": 5}, TypeError, "unique_key=5"),
    ({"unique_key": ("a", 1)}, TypeError, "unique_key"),
    ({"id": "not a uuid"}, ValueError, "id='not a uuid'"),
    ({"id": ""}, ValueError, "id=''"),
    ({"id": 5}, TypeError, "id=5"),
    ({"id": uuid.UUID(int=5).bytes}, TypeError, "id="),
    ({"queues": "a"}, TypeError, "queues"),
    ({"prio": 1}, TypeError, "prio"),
]

CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    # what is to run
    ("", (), {}, ValueError, "name=''"),
    ("x" * 501, (), {}, ValueError, "501"),
    ("a\x00", (), {}, ValueError, "NUL"),
    ("\udc80", (), {}, ValueError, "surrogate"),
    (None, (), {}, TypeError, "None"),
    (5, (), {}, TypeError, "5"),
    (b"name", (), {}, TypeError, "b'name'"),
    (["name"], (), {}, TypeError, "name"),
    (positional_only, (), {"a": 1}, TypeError, "'a'"),
    (generator, (), {}, TypeError, "generator"),
    (async_generator, (), {}, TypeError, "generator"),
    (print, (), {}, TypeError, "print"),
    (int, (), {}, TypeError, "int"),
    (Callback(), (), {}, TypeError, "Callback"),
    (Callback().method, (), {}, TypeError, "method"),
    # arguments that do not fit
    (send_email, (), {}, TypeError, "'to'"),
    (send_email, (), {"to": "a", "cc": "b"}, TypeError, "'cc'"),
    (send_email, ("a", "b", "c"), {}, TypeError, "2 arguments, got 3"),
    (send_email, ("a",), {"to": "b"}, TypeError, "'to'"),
    (look, (), {"word": "w", "context": 1}, TypeError, "'context'"),
    (look, (), {}, TypeError, "'word'"),
    (report, (), {"month": 1}, TypeError, "'year'"),
    ("by.name", ("a",), {}, TypeError, "by name"),
    # arguments that are not JSON
    (anything, (), {"good": 1, "bad": object()}, TypeError, "'bad'"),
    (anything, (), {"bad": NAN}, TypeError, "'bad'"),
    (anything, (), {"bad": [1, {"x": INF}]}, TypeError, "'bad'"),
    (anything, (), {"bad": -INF}, TypeError, "'bad'"),
    (anything, (), {"bad": b"bytes"}, TypeError, "'bad'"),
    (anything, (), {"bad": bytearray(b"x")}, TypeError, "'bad'"),
    (anything, (), {"bad": {1, 2}}, TypeError, "'bad'"),
    (anything, (), {"bad": 1j}, TypeError, "'bad'"),
    (anything, (), {"bad": decimal.Decimal("1.5")}, TypeError, "'bad'"),
    (anything, (), {"bad": datetime(2026, 1, 1, tzinfo=UTC)}, TypeError, "'bad'"),
    (anything, (), {"bad": uuid.uuid4()}, TypeError, "'bad'"),
    (anything, (), {"bad": 10**5000}, TypeError, "'bad'"),
    (anything, (), {"bad": {(1, 2): 3}}, TypeError, "'bad'"),
    (anything, (), {"bad": deep(100_000)}, TypeError, "'bad'"),
    (anything, (), {"bad": range(3)}, TypeError, "'bad'"),
    ("by.name", (), {"bad": object()}, TypeError, "'bad'"),
    # too much of them
    (anything, (), {"big": "x" * (32 << 20)}, ValueError, "bytes"),
    (anything, (), {"a": "x" * (17 << 20), "b": "x" * (17 << 20)}, ValueError, "bytes"),
]


@pytest.fixture(scope="module")
def shared(databases: Databases) -> Iterator[str]:
    """The DSN of one database for all: nothing is to be stored in it."""
    with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
def storage(backend: str, request: pytest.FixtureRequest) -> Iterator[BaseStorage]:
    """A storage in memory, or on the shared database, which is empty again after the test, whatever came of it."""
    if backend == "sqlite":
        with SQLAlchemyStorage("sqlite:///:memory:") as storage:
            yield storage
        return
    dsn = request.getfixturevalue("shared")
    with PostgresStorage(dsn, max_size=2) as storage:
        yield storage
        left = storage.stats().run()
    if any(left.values()):
        with backstage_of(dsn) as backstage:
            backstage.clear()


def refused(queue: JobQueue, call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert len(str(caught.value)) < 3000
    assert queue.count() == 0
    assert queue.dequeue() is None


@pytest.mark.parametrize(("given", "error", "says"), OPTIONS, ids=ascii)
def test_options_of_enqueue_out_of_range_are_refused(
    queue: JobQueue, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    refused(queue, lambda: queue.enqueue(anything, **given), error, says)
    refused(queue, lambda: queue.enqueue_many(anything, [{}], **given), error, says)


@pytest.mark.parametrize(("given", "error", "says"), MORE_OPTIONS, ids=ascii)
def test_options_out_of_range_are_refused(
    plain: JobQueue, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    refused(plain, lambda: plain.options(**given).enqueue(anything), error, says)


@pytest.mark.parametrize(
    ("what", "arguments", "keywords", "error", "says"), CALLS, ids=[f"{n}" for n in range(len(CALLS))]
)
def test_calls_that_cannot_be_stored_are_refused(  # noqa: PLR0917 - fixtures and parameters
    queue: JobQueue,
    what: Any,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    refused(queue, lambda: queue.options(priority=1).enqueue(what, *arguments, **keywords), error, says)
    if not arguments:
        refused(queue, lambda: queue.enqueue(what, **keywords), error, says)
        refused(queue, lambda: queue.enqueue_many(what, [keywords]), error, says)


@pytest.mark.parametrize("jobs", [None, 5, object()])
def test_many_must_be_iterable(plain: JobQueue, jobs: Any) -> None:
    with pytest.raises(TypeError):
        plain.enqueue_many(anything, jobs)
    assert plain.count() == 0


@pytest.mark.parametrize("jobs", [{"to": "a"}, "text", [None], [("to", "a")], [[]], [5]])
def test_each_of_many_must_be_a_mapping(plain: JobQueue, jobs: Any) -> None:
    with pytest.raises(TypeError, match="job 0"):
        plain.enqueue_many(send_email, jobs)
    assert plain.count() == 0


@pytest.mark.parametrize(
    "keywords", [{1: "a"}, {None: "a"}, {True: 1}, {1: "a", "1": "b"}, {b"x": 1}, {("a",): 1}], ids=ascii
)
@pytest.mark.parametrize("what", [anything, "by.name"])
def test_the_names_of_arguments_must_be_text(plain: JobQueue, what: Any, keywords: Any) -> None:
    """JSON would quietly make text of numbers, and one argument of two."""
    with pytest.raises(TypeError, match="job 0"):
        plain.enqueue_many(what, [keywords])
    assert plain.count() == 0


def test_the_largest_data_that_are_allowed_are_kept(plain: JobQueue) -> None:
    text = "x" * ((32 << 20) - 100)
    plain.enqueue(anything, text=text)
    job = plain.dequeue()
    assert job is not None
    assert job.data["text"] == text


WRONG_QUESTIONS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("list_jobs", {"status": "done"}, ValueError, "status='done'"),
    ("list_jobs", {"status": 5}, TypeError, "status=5"),
    ("count", {"status": "Pending"}, ValueError, "status='Pending'"),
    ("count", {"status": ""}, ValueError, "status=''"),
    ("count", {"status": ["pending"]}, TypeError, "status="),
    ("list_jobs", {"limit": -1}, ValueError, "limit=-1"),
    ("list_jobs", {"limit": 2**63}, ValueError, "limit"),
    ("list_jobs", {"limit": 1.5}, TypeError, "limit=1.5"),
    ("list_jobs", {"limit": True}, TypeError, "limit=True"),
    ("get_completed_jobs", {"limit": "1"}, TypeError, "limit='1'"),
    ("dequeue", {"queue": ""}, ValueError, "queue=''"),
    ("dequeue", {"queue": None}, TypeError, "queue=None"),
    ("dequeue", {"queue": "a\x00"}, ValueError, "NUL"),
    ("dequeue", {"queue": "\ud800"}, ValueError, "surrogate"),
    ("dequeue", {"queue": "x" * 201}, ValueError, "201"),
    ("dequeue", {"lease": 0}, ValueError, "lease=0"),
    ("dequeue", {"lease": -1}, ValueError, "lease=-1"),
    ("dequeue", {"lease": float("nan")}, ValueError, "lease=nan"),
    ("dequeue", {"lease": float("inf")}, ValueError, "lease=inf"),
    ("dequeue", {"lease": "1"}, TypeError, "lease='1'"),
]


@pytest.mark.parametrize(("method", "given", "error", "says"), WRONG_QUESTIONS, ids=ascii)
def test_a_wrong_question_is_refused(
    queue: JobQueue, method: str, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        getattr(queue, method)(**given)
    assert says in str(caught.value)
    assert queue.count() == 0


def test_a_storage_is_needed() -> None:
    for wrong in (5, b"postgresql://localhost/app", object()):
        with pytest.raises(TypeError, match="storage="):
            JobQueue(wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
