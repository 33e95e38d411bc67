"""What enqueue writes, in which order jobs come out, and which options they take."""

from __future__ import annotations

import dataclasses
import tracemalloc
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from dbjobq import BaseStorage, Job, JobQueue, PostgresStorage, Retry
from tests.queue.jobs import anything, report, send_email
from tests.storage.workers import claim, run, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

pytestmark = pytest.mark.every_storage


def drain(queue: JobQueue, name: str = "default") -> list[Job]:
    """Claim and complete until nothing is due."""
    jobs: list[Job] = []
    while (job := queue.dequeue(name)) is not None:
        queue.complete(job)
        jobs.append(job)
    return jobs


def numbers(queue: JobQueue, name: str = "default") -> list[int]:
    return [job.data["n"] for job in drain(queue, name)]


def test_a_job_is_there_once_enqueue_returns(queue: JobQueue) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    job_id = queue.enqueue(send_email, to="user@example.com", subject="Hello")
    job = queue.get_job(job_id)
    assert job is not None
    assert job == Job(
        id=job_id,
        type="tests.queue.jobs.send_email",
        data={"to": "user@example.com", "subject": "Hello"},
        created_at=job.created_at,
        updated_at=job.created_at,
    )
    assert job.created_at is not None
    assert job.created_at.utcoffset() == timedelta(0)
    assert before < job.created_at < before + timedelta(minutes=2)


def test_ids_are_uuid7_and_sort_by_creation(queue: JobQueue) -> None:
    ids = [queue.enqueue(anything, n=n) for n in range(20)]
    assert ids == sorted(ids)
    assert {uuid.UUID(i).version for i in ids} == {7}


def test_a_job_can_be_enqueued_by_name(queue: JobQueue) -> None:
    job = queue.get_job(queue.enqueue("elsewhere.module.function", to="a", any_name=[1, {"b": None}]))
    assert job is not None
    assert (job.type, job.data) == ("elsewhere.module.function", {"to": "a", "any_name": [1, {"b": None}]})


def test_a_registered_name_brings_its_options_with_it(queue: JobQueue) -> None:
    job = queue.get_job(queue.enqueue("tests.queue.jobs.report", year=2026))
    assert job is not None
    assert (job.queue, job.priority, job.max_retries) == ("reports", 9, 7)


def test_the_job_types_options_apply_unless_the_call_has_its_own(queue: JobQueue, backstage: Backstage) -> None:
    typical = queue.get_job(queue.enqueue(report, year=1))
    special = queue.get_job(queue.enqueue(report, year=1, priority=-3, max_retries=0))
    other = queue.get_job(queue.options(queue="other", timeout=1.5).enqueue(report, 1))
    assert typical is not None
    assert special is not None
    assert other is not None
    assert (typical.queue, typical.priority, typical.max_retries) == ("reports", 9, 7)
    assert (special.queue, special.priority, special.max_retries) == ("reports", -3, 0)
    assert (other.queue, other.priority, other.max_retries) == ("other", 9, 7)
    assert backstage.timeouts() == [None, None, 1.5]


def test_with_options_every_keyword_is_the_jobs_own(queue: JobQueue) -> None:
    words = {"priority": "p", "max_retries": "m", "execute_at": "e", "self": "s", "function": "f", "queue": "q"}
    job = queue.get_job(queue.options(queue="other").enqueue(anything, **words))
    assert job is not None
    assert (job.data, job.queue, job.priority) == (words, "other", 5)


def test_options_add_up_and_leave_the_queue_as_it_was(queue: JobQueue) -> None:
    base = queue.options(queue="mail", priority=1)
    urgent = queue.get_job(base.options(priority=50).enqueue(send_email, "a"))
    normal = queue.get_job(base.enqueue(send_email, "a"))
    bare = queue.get_job(queue.enqueue(send_email, to="a"))
    assert [(j.queue, j.priority) for j in (urgent, normal, bare) if j is not None] == [
        ("mail", 50),
        ("mail", 1),
        ("default", 5),
    ]


# Order.


def test_higher_priority_runs_first_and_equal_ones_in_the_order_enqueued(queue: JobQueue) -> None:
    priorities = [0, 5, -(2**31), 2**31 - 1, 5, -1, 0, 5]
    for n, priority in enumerate(priorities):
        queue.enqueue(anything, n=n, priority=priority)
    assert numbers(queue) == [3, 1, 4, 7, 0, 6, 5, 2]


def test_jobs_enqueued_one_by_one_and_in_bulk_keep_their_order(queue: JobQueue) -> None:
    queue.enqueue(anything, n=0)
    queue.enqueue_many(anything, [{"n": n} for n in range(1, 6)])
    queue.enqueue(anything, n=6)
    assert numbers(queue) == list(range(7))


def test_a_scheduled_job_waits_until_it_is_due(queue: JobQueue, backstage: Backstage) -> None:
    job_id = queue.options(delay=60).enqueue(anything, n=1)
    assert queue.dequeue() is None
    assert queue.count("pending") == 1
    backstage.skip(61)
    job = queue.dequeue()
    assert job is not None
    assert job.id == job_id


def test_jobs_run_in_the_order_they_became_due(queue: JobQueue, backstage: Backstage) -> None:
    for n, delay in enumerate([300, 100, 200]):
        queue.options(delay=delay).enqueue(anything, n=n)
    backstage.skip(301)
    assert numbers(queue) == [1, 2, 0]


def test_jobs_due_at_the_same_time_run_in_the_order_enqueued(queue: JobQueue, backstage: Backstage) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    for n in range(30):
        queue.enqueue(anything, n=n, execute_at=when)
    backstage.skip(3601)
    assert numbers(queue) == list(range(30))


def test_ids_of_ones_own_do_not_change_the_order_of_jobs_due_together(queue: JobQueue, backstage: Backstage) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    for n in range(10):
        queue.options(id=uuid.UUID(int=1000 - n), execute_at=when).enqueue(anything, n=n)
    backstage.skip(3601)
    assert numbers(queue) == list(range(10))


def test_thousands_of_jobs_due_at_the_same_time_run_in_the_order_enqueued(
    storage: BaseStorage, plain: JobQueue, backstage: Backstage
) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    ids = plain.enqueue_many(anything, [{"n": n} for n in range(4500)], execute_at=when)
    backstage.skip(3601)

    async def main() -> None:
        async with worker(storage) as session:
            got: list[str] = []
            while step := await claim(session, 700):  # becoming due is looked at each time
                got += [held.id for held in step]
            assert got == ids

    run(main())


def test_a_job_that_was_due_earlier_goes_before_one_enqueued_since(queue: JobQueue, backstage: Backstage) -> None:
    queue.options(delay=10).enqueue(anything, n=1)
    backstage.skip(20)  # due, but nobody has looked yet
    queue.enqueue(anything, n=2)
    assert numbers(queue) == [1, 2]


def test_queues_do_not_see_each_others_jobs(queue: JobQueue) -> None:
    queue.options(queue="a").enqueue(anything, n=1)
    queue.options(queue="b").enqueue(anything, n=2)
    assert numbers(queue, "b") == [2]
    assert numbers(queue, "default") == []
    assert numbers(queue, "a") == [1]


# When.


def test_a_naive_execute_at_is_local_time(queue: JobQueue) -> None:
    when = datetime.now() + timedelta(hours=1)  # noqa: DTZ005 - that is the point
    job = queue.get_job(queue.enqueue(anything, n=1, execute_at=when))
    assert job is not None
    assert job.execute_at == when.astimezone(UTC)


def test_an_aware_execute_at_is_kept_exactly(queue: JobQueue) -> None:
    when = datetime(2051, 3, 4, 5, 6, 7, 891234, timezone(timedelta(hours=-7)))
    job = queue.get_job(queue.enqueue(anything, n=1, execute_at=when))
    assert job is not None
    assert job.execute_at == when
    assert job.execute_at is not None
    assert job.execute_at.tzinfo is UTC


def test_an_execute_at_in_the_past_is_due_at_once(queue: JobQueue) -> None:
    queue.enqueue(anything, n=1, execute_at=datetime(1999, 1, 1, tzinfo=UTC))
    assert numbers(queue) == [1]


@pytest.mark.parametrize("delay", [0, 0.0, timedelta(0)])
def test_no_delay_is_due_at_once(queue: JobQueue, delay: float | timedelta) -> None:
    queue.options(delay=delay).enqueue(anything, n=1)
    assert numbers(queue) == [1]


def test_a_delay_is_counted_from_the_databases_now(queue: JobQueue, backstage: Backstage) -> None:
    job = queue.get_job(queue.options(delay=timedelta(minutes=5)).enqueue(anything, n=1))
    assert job is not None
    assert job.execute_at is not None
    assert job.created_at is not None
    assert timedelta(seconds=299) < job.execute_at - job.created_at < timedelta(seconds=301)
    due = backstage.due_in()
    assert due is not None
    assert 290 < due <= 300


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize(
    "when",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
    ],
    ids=["max", "max-12", "min", "min+12"],
)
def test_a_time_at_the_end_of_the_calendar_is_refused_or_can_be_read_back(dsn: str, when: datetime, zone: str) -> None:
    with PostgresStorage(make_conninfo(dsn, options=f"-c TimeZone={zone}")) as storage:
        queue = JobQueue(storage)
        try:
            queue.enqueue(anything, n=1, execute_at=when)
        except ValueError:
            assert queue.count() == 0
            return
        assert [job.execute_at for job in queue.list_jobs()] == [when]


# Many.


def test_enqueue_many_returns_the_ids_in_order(queue: JobQueue) -> None:
    ids = queue.enqueue_many(send_email, [{"to": "a"}, {"to": "b", "subject": "s"}])
    assert [job.data for i in ids if (job := queue.get_job(i))] == [{"to": "a"}, {"to": "b", "subject": "s"}]
    assert queue.enqueue_many(send_email, []) == []
    assert queue.count() == 2


def test_enqueue_many_takes_the_options_of_enqueue(queue: JobQueue, backstage: Backstage) -> None:
    queue.enqueue_many(report, [{"year": 1}], priority=-2, max_retries=4)
    queue.options(queue="other", delay=500, timeout=0.25).enqueue_many("by.name", [{"x": 1}])
    first, second = reversed(queue.list_jobs())
    assert (first.queue, first.priority, first.max_retries, first.execute_at) == ("reports", -2, 4, None)
    assert (second.queue, second.priority, second.max_retries) == ("other", 5, 3)
    assert second.execute_at is not None
    assert backstage.timeouts() == [None, 0.25]
    assert queue.dequeue("other") is None
    backstage.skip(501)
    assert queue.dequeue("other") is not None


def test_enqueue_many_of_thousands_keeps_their_order(storage: BaseStorage, plain: JobQueue) -> None:
    ids = plain.enqueue_many(anything, ({"n": n} for n in range(20_000)))
    found = plain.list_jobs()[::-1]
    assert [job.id for job in found] == ids
    assert [job.data["n"] for job in found] == list(range(20_000))

    async def main() -> None:
        async with worker(storage) as session:
            for n in range(0, 2000, 500):
                assert [held.id for held in await claim(session, 500)] == ids[n : n + 500]

    run(main())


def test_the_memory_of_enqueue_many_does_not_grow_with_the_number_of_jobs(plain: JobQueue, database: Database) -> None:
    plain.enqueue_many(anything, [{"n": 0}])

    def peak(count: int) -> int:
        tracemalloc.start()
        ids = plain.enqueue_many(anything, ({"n": n, "text": "x" * 100} for n in range(count)))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(ids) == count
        return most

    few, many = peak(10_000), peak(25_000)
    assert many < few * 1.1 + 50_000


def broken_after(count: int, last: Any) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {"n": n}
    if isinstance(last, Exception):
        raise last
    yield last


@pytest.mark.parametrize("count", [0, 3, 7000])
@pytest.mark.parametrize(
    ("last", "error", "says"),
    [
        ({"n": object()}, TypeError, "'n'"),
        ({"n": "x" * (33 << 20)}, ValueError, "bytes"),
        (["n"], TypeError, "mapping"),
        (RuntimeError("the source broke"), RuntimeError, "the source broke"),
    ],
    ids=["not-json", "too-large", "no-mapping", "source"],
)
def test_an_error_in_the_middle_of_many_stores_nothing(
    plain: JobQueue, count: int, last: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        plain.enqueue_many(anything, broken_after(count, last))
    if error is not RuntimeError:
        assert f"job {count}" in str(caught.value)
    assert plain.count() == 0


def test_many_are_checked_against_the_signature(queue: JobQueue) -> None:
    with pytest.raises(TypeError, match=r"job 1.*'t'"):
        queue.enqueue_many(send_email, [{"to": "a"}, {"t": "b", "to": "a"}])
    with pytest.raises(TypeError, match=r"job 0.*'to'"):
        queue.enqueue_many(send_email, [{}])
    assert queue.count() == 0


def test_many_cannot_share_an_id_or_a_unique_key(queue: JobQueue) -> None:
    with pytest.raises(ValueError, match="unique_key"):
        queue.options(unique_key="k").enqueue_many(anything, [{}])
    with pytest.raises(ValueError, match="id"):
        queue.options(id=uuid.uuid4()).enqueue_many(anything, [{}])
    assert queue.count() == 0


# Arguments come back as they went in.

KEPT: list[Any] = [
    None,
    True,
    [],
    {},
    "",
    -0.0,
    1e308,
    5e-324,
    2**63,
    -(10**4000),
    "a\x00b",
    "\ud800",
    "\udfff and \U0001f600",
    "'; drop table dbjobq.job; --",
    "%s %(name)s %% {schema} {0} $1 \\ \\. \\N \t\r\n\x0b\x0c\x1c\x85\u2028",
    {"": 1, "\x00": 2, "é": 3, "\ud800": 4, "__class__": 5},
    [[[[{"a": [1, [2, [3]]]}]]]],
    "x" * 2_000_000,
    ["y"] * 50_000,
]


@pytest.mark.parametrize("value", KEPT, ids=[f"{n}" for n in range(len(KEPT))])
def test_what_is_taken_comes_back_exactly(plain: JobQueue, value: Any) -> None:
    one = plain.enqueue(anything, value=value)
    (many,) = plain.enqueue_many("by.name", [{"value": value}])
    stored = {job.id: repr(job.data) for job in plain.list_jobs()}
    claimed = {job.id: repr(job.data) for job in drain(plain)}
    assert stored == claimed == dict.fromkeys([one, many], repr({"value": value}))


@pytest.mark.parametrize("name", ["", "a b", "é" * 200, "x'\"; --", "\\.", "\\N", "\t\n", "%s{schema}", "\U0001f600"])
def test_hostile_names_are_kept_or_refused(plain: JobQueue, name: str) -> None:
    if not name:
        with pytest.raises(ValueError, match="queue"):
            plain.options(queue=name).enqueue("f")
        return
    with_key = plain.options(queue=name, unique_key=name)
    one = with_key.enqueue(name, **{name: name})
    assert with_key.enqueue(name) == one
    (many,) = plain.options(queue=name).enqueue_many(name, [{name: name}])
    jobs = drain(plain, name)
    assert [dataclasses.astuple(job)[:2] for job in jobs] == [(one, name), (many, name)]
    assert [(job.queue, job.data) for job in jobs] == [(name, {name: name})] * 2


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def deeper(frames: int, plain: JobQueue) -> Job | None:
    return plain.dequeue() if frames == 0 else deeper(frames - 1, plain)


@pytest.mark.parametrize("depth", [100, 400, 700, 800, 900, 950, 5_000, 20_000, 100_000])
def test_nesting_is_refused_or_can_be_claimed_from_a_deeper_stack(plain: JobQueue, depth: int) -> None:
    try:
        plain.enqueue(anything, value=nested(depth))
    except (TypeError, ValueError) as error:
        assert depth > 100
        assert isinstance(error, ValueError) or "'value'" in str(error)  # noqa: PT017
        assert plain.count() == 0
        return
    job = deeper(150, plain)
    assert job is not None
    found, value = 0, job.data["value"]
    while value:
        found, (value,) = found + 1, value
    assert found == depth


def test_positional_arguments_are_bound_to_their_names(queue: JobQueue) -> None:
    ids = [
        queue.enqueue(send_email, "a", "b"),
        queue.enqueue(send_email, "a", subject="b", priority=7),
        queue.options(delay=5).enqueue(send_email, "a", "b"),
    ]
    jobs = [queue.get_job(i) for i in ids]
    assert [job.data for job in jobs if job] == [{"to": "a", "subject": "b"}] * 3
    with pytest.raises(TypeError, match="takes 2 arguments, got 3"):
        queue.enqueue(send_email, "a", "b", "c")
    with pytest.raises(TypeError, match="got 'to' twice"):
        queue.enqueue(send_email, "a", to="b")
    with pytest.raises(TypeError, match="by name"):
        queue.enqueue("a.name", 1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"queue": "mail"}, r"queue.options\(queue=…\)"),
        ({"delay": 5, "unique_key": "k"}, r"queue.options\(delay=…, unique_key=…\)"),
        ({"connection": object()}, r"queue.options\(connection=…\)"),
        ({"id": "x", "subject": "s"}, r"queue.options\(id=…\)"),
        ({"timeout": 3.0}, r"queue.options\(timeout=…\)"),
    ],
)
def test_an_option_given_as_an_argument_is_refused_with_what_to_write(
    queue: JobQueue, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        queue.enqueue(send_email, to="a", **given)
    with pytest.raises(TypeError, match=r"no argument .*options\("):
        queue.options(priority=1).enqueue(send_email, to="a", **given)
    assert queue.count() == 0


def test_an_argument_may_have_an_options_name(queue: JobQueue) -> None:
    given: dict[str, Any] = {"queue": 1, "delay": 2, "id": 3, "timeout": 4, "unique_key": 5, "connection": 6}
    found = [queue.get_job(queue.enqueue(what, **given)) for what in (anything, "by.name")]
    assert [job.data for job in found if job] == [given, given]
    with pytest.raises(TypeError, match=r"options\(connection=…, delay=…\)|options\(delay=…, connection=…\)"):
        queue.enqueue("by.name", connection=object(), delay=timedelta(1))


@pytest.mark.parametrize("delay", [0, 0.0, -0.0, timedelta(0), timedelta(microseconds=-3), -0.999])
def test_a_computed_delay_a_hair_below_zero_is_now(queue: JobQueue, delay: Any) -> None:
    one = queue.options(delay=delay).enqueue(anything)
    assert [job.id for job in drain(queue)] == [one]
    assert Retry(after=delay).after == 0
    queue.cancel(again := queue.enqueue(anything))
    queue.retry(again, delay if isinstance(delay, int | float) else delay.total_seconds())
    assert [job.id for job in drain(queue)] == [again]


@pytest.mark.parametrize("past", [timedelta(microseconds=1), timedelta(days=20000)])
def test_a_time_that_is_past_is_now(queue: JobQueue, past: timedelta) -> None:
    one = queue.enqueue(anything, execute_at=datetime.now(UTC) - past)
    assert [job.id for job in drain(queue)] == [one]


@pytest.mark.parametrize("given", [{"delay": 60}, {"unique_key": "k"}, {}])
def test_an_id_made_here_that_is_taken_already_is_no_repeat(
    queue: JobQueue, backend: str, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """Makers of ids that know nothing of a fork make some twice."""
    first = queue.enqueue(anything, n=1)
    monkeypatch.setattr("dbjobq.queue.base.new_id", lambda: first)
    if backend == "postgres" and given:
        second = queue.options(**given).enqueue(anything, n=2)
        assert second != first
        assert [job.data for job in queue.list_jobs()] == [{"n": 2}, {"n": 1}]
    else:
        with pytest.raises(Exception, match=r"(?i)unique constraint"):
            queue.options(**given).enqueue(anything, n=2)
        assert queue.count() == 1
    assert queue.options(id=first).enqueue(anything, n=3) == first
