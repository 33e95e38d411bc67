"""The life of jobs against a model: whatever is done to them, in whatever order, late, twice or by the wrong worker.

Real databases, a model that knows only `models.TRANSITIONS`, few jobs, many stale claims. `test_a_broken_…` break the
statements and see that the machine notices.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from dbjobq import JobQueue, PostgresStorage
from dbjobq.models import TRANSITIONS, Status, after_failure
from dbjobq.storage.postgres.rows import claims_of
from dbjobq.storage.sqlite import jobs
from dbjobq.storage.values import UNIQUE
from tests.storage.backstage import Backstage
from tests.storage.workers import BEAT, claim, ended, exchange

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from dbjobq import BaseStorage
    from dbjobq.models import Event
    from dbjobq.storage.values import Claim
    from dbjobq.storage.worker_port import Session

pytestmark = pytest.mark.every_storage

FULL = settings(
    stateful_step_count=30,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
SHORT = settings(
    FULL, max_examples=200, derandomize=True, database=None, report_multiple_bugs=False, phases=(Phase.generate,)
)
WAIT = 30.0
"""Seconds after which a claim counts as waiting for another."""


@dataclass
class Known:
    """What the model knows of one job."""

    max_retries: int
    key: str | None
    status: Status = "pending"
    attempts: int = 0
    later: bool = False
    """It waits for its time."""
    delayed: bool = False
    """That time was asked for when it was enqueued: it counts again if the job is revived."""
    holder: tuple[int, str] | None = None
    """The worker that runs it, and its claim."""


class World:
    """The database that serves every example, and its event loop."""

    def __init__(self, storage: BaseStorage, backstage: Backstage) -> None:
        self.runner = asyncio.Runner()
        self.storage, self.backstage = storage, backstage
        self.queue = JobQueue(self.storage)
        storage.check().run()
        self.sessions = [self.storage.session(f"w{n}", None, BEAT) for n in range(3)]
        self.pulses = [session.pulse() for session in self.sessions]

    def reset(self) -> None:
        self.backstage.clear()
        for session in self.sessions:
            self.renew(session)

    def renew(self, session: Session) -> None:
        async def again() -> None:
            await session.close()
            session.forget()
            await session.open()

        self.runner.run(again())

    def claim(self, worker: int, want: int) -> list[Claim]:
        """Claim as that worker, which must not wait for anybody."""
        try:
            return self.runner.run(asyncio.wait_for(claim(self.sessions[worker], want), WAIT))
        except TimeoutError:
            raise AssertionError(f"a claim waited for {WAIT} s") from None

    @contextmanager
    def claiming(self, worker: int, want: int) -> Generator[list[Claim]]:
        """A claim that is not committed while the block runs: how it is in between cannot be seen any other way."""
        if not isinstance(self.storage, PostgresStorage):  # one writes at a time: there is no in between
            yield self.claim(worker, want)
            return
        sql, name = self.storage.statements, self.sessions[worker].worker_id
        with self.storage.connections.connect() as connection:
            number = connection.execute("select max(id) from dbjobq.worker where name = %s", (name,)).fetchall()[0][0]
            connection.execute(sql["promote"], {"since": None})
            with connection.transaction():
                params = {"queues": [1], "limit": want, "lease": None, "worker": number, "name": name, "beat": None}
                yield claims_of(connection.execute(sql["claim"], params).fetchall(), {1: "default"})

    def close(self) -> None:
        async def every() -> None:
            for session in self.sessions:
                await session.close()

        self.runner.run(every())
        self.runner.close()
        for pulse in self.pulses:
            pulse.close()


class LifeCycle(RuleBasedStateMachine):
    """Does to jobs what queues and workers do, and compares."""

    world: ClassVar[World]
    claims: Bundle[tuple[int, Any]] = Bundle("claims")
    jobs: Bundle[str] = Bundle("jobs")

    @initialize(target=claims)
    def start(self) -> Any:
        """Three jobs, held by the first worker: much can be done to them at once."""
        self.world.reset()
        self.model: dict[str, Known] = {}
        for retries in range(3):
            self.enqueue(None, retries, later=False)
        return self.take(0, 3)

    @rule(target=jobs, key=st.sampled_from([None, None, "a", "b"]), retries=st.integers(0, 2), later=st.booleans())
    def add(self, key: str | None, retries: int, *, later: bool) -> str:
        return self.enqueue(key, retries, later=later)

    def enqueue(self, key: str | None, retries: int, *, later: bool) -> str:
        queue = self.world.queue.options(max_retries=retries)
        queue = queue.options(unique_key=key) if key else queue
        job_id = (queue.options(delay=1000) if later else queue).enqueue("f", n=len(self.model))
        holder = self.holder(key)
        if holder is not None:
            assert job_id == holder
        else:
            assert job_id not in self.model
            self.model[job_id] = Known(retries, key, later=later, delayed=later)
        return job_id

    def holder(self, key: str | None) -> str | None:
        held = [i for i, job in self.model.items() if key and job.key == key and job.status in {"pending", "running"}]
        assert len(held) <= 1
        return held[0] if held else None

    @rule(target=claims, worker=st.integers(0, 2), want=st.integers(1, 3))
    def claim(self, worker: int, want: int) -> Any:
        return self.take(worker, want)

    @rule(target=claims, one=st.integers(0, 2), other=st.integers(0, 2), want=st.integers(1, 3))
    def claim_together(self, one: int, other: int, want: int) -> Any:
        """Two workers ask in the same moment: neither waits, and each gets jobs of its own."""
        with self.world.claiming(one, want) as first:
            second = self.world.claim(other, want)
        return multiple(*self.took(one, want, first), *self.took(other, want, second))

    @rule(target=claims, held=claims, worker=st.integers(0, 2), late=st.booleans())
    def change_hands(self, held: tuple[int, Claim], worker: int, late: bool) -> Any:
        """What one worker gives back, another takes: the first one's claim is stale then, and it may not know."""
        self.finish(held, "release")
        taken = self.take(worker, 3)
        if late:
            self.tell([held], "complete", again=False)
        return taken

    def take(self, worker: int, want: int) -> Any:
        return multiple(*self.took(worker, want, self.world.claim(worker, want)))

    def took(self, worker: int, want: int, got: list[Claim]) -> Iterator[tuple[int, Claim]]:
        free = {i for i, job in self.model.items() if job.status == "pending" and not job.later}
        assert len({c.id for c in got}) == len(got) == min(want, len(free))
        for held in got:
            job = self.model[held.id]
            assert held.id in free
            assert held.attempts == job.attempts
            assert held.ties == (UNIQUE if job.key is not None else 0)
            job.status, job.holder = TRANSITIONS[job.status, "claim"], (worker, held.claim)
            yield worker, held

    def holds(self, held: Claim) -> bool:
        job = self.model[held.id]
        return job.status == "running" and job.holder is not None and job.holder[1] == held.claim

    def move(self, job: Known, event: Event) -> None:
        """Follow the table, and keep what hangs on it."""
        job.status, job.holder = TRANSITIONS[job.status, event], None
        job.attempts += event in {"retry", "fail"}
        job.later = event == "retry"

    def outcome(self, held: Claim, event: Event) -> tuple[Event, Any]:
        if event in {"retry", "fail"}:
            event = after_failure(held.attempts, held.max_retries)
        return event, ended(held, event, delay=1000.0, result="1" if event == "complete" and held.attempts else None)

    EVENTS = st.sampled_from(["complete", "retry", "release"])

    @rule(held=claims, event=EVENTS)
    def end(self, held: tuple[int, Claim], event: Event) -> None:
        self.finish(held, event)

    def finish(self, held: tuple[int, Claim], event: Event) -> None:
        """A claim may finish late, or twice: it counts once, and only while it is held."""
        claimed = held[1]
        event, outcome = self.outcome(claimed, event)
        accepted = self.world.storage.finish([outcome]).run()
        assert (claimed.id in accepted) is self.holds(claimed)
        if accepted:
            self.move(self.model[claimed.id], event)

    @rule(some=st.lists(claims, min_size=1, max_size=4), event=EVENTS, again=st.booleans())
    def report(self, some: list[tuple[int, Claim]], event: Event, again: bool) -> None:
        """A worker reports a batch, of which some may be stale; and again, if it heard no answer."""
        self.tell(some, event, again=again)

    def tell(self, some: list[tuple[int, Claim]], event: Event, *, again: bool) -> None:
        worker = some[0][0]
        mine = {(c.id, c.claim): c for w, c in some if w == worker}
        sent = [(c, *self.outcome(c, event)) for c in mine.values()]
        if len({c.id for c, _, _ in sent}) < len(sent):
            return  # a worker has one outcome for a job at a time
        held = {c.id for c, _, _ in sent if self.holds(c)}
        for _ in range(1 + again):
            step = self.world.runner.run(exchange(self.world.sessions[worker], [o for _, _, o in sent]))
            refused = {o.claim.id for o in step.refused}
            assert refused.isdisjoint(held)
        for claimed, which, _ in sent:
            if claimed.id in held:
                self.move(self.model[claimed.id], which)

    @rule(job_id=jobs | claims.map(lambda held: held[1].id))
    def cancel(self, job_id: str) -> None:
        job = self.model[job_id]
        possible = job.status in {"pending", "running"}
        assert self.world.queue.cancel(job_id) is possible
        if possible:
            self.move(job, "cancel")
            job.later = False

    @rule(job_id=jobs | claims.map(lambda held: held[1].id), delay=st.sampled_from([0, 1000]))
    def revive(self, job_id: str, delay: int) -> None:
        job = self.model[job_id]
        if (after := TRANSITIONS.get((job.status, "revive"))) is None:
            assert self.world.queue.retry(job_id, delay) is False
            return
        taken = self.holder(job.key) is not None
        assert self.world.queue.retry(job_id, delay) is True
        job.status, job.attempts, job.later = after, 0, delay > 0 or job.delayed
        if taken:
            job.key = None if job.key is None else f"lost {job.key}"

    @rule()
    def wait(self) -> None:
        """What waits for its time becomes due; no worker dies of it."""
        self.world.backstage.fall_due()
        for job in self.model.values():
            job.later = False

    @rule(worker=st.integers(0, 2), rescued=st.booleans())
    def die(self, worker: int, rescued: bool) -> None:
        """A worker's life ends; it comes back as another, and its claims may be reported by it all the same."""
        session, backstage = self.world.sessions[worker], self.world.backstage
        backstage.kill(session.worker_id)
        holds = any(job.holder is not None and job.holder[0] == worker for job in self.model.values())
        if holds or isinstance(
            self.world.storage, PostgresStorage
        ):  # on SQLite, what holds nothing has nothing to lose
            assert self.world.pulses[worker].beat(BEAT) is False
        if rescued:
            self.rescue(worker)
            self.world.renew(session)
        else:  # it was only slow, and nobody noticed
            backstage.revive(session.worker_id)

    def rescue(self, worker: int) -> None:
        lost = {i: job for i, job in self.model.items() if job.holder is not None and job.holder[0] == worker}
        got = {r.id: r for r in self.world.pulses[0].rescue()}
        assert got.keys() == lost.keys()
        for job_id, job in lost.items():
            event = after_failure(job.attempts, job.max_retries)
            assert (got[job_id].attempts, got[job_id].dead) == (job.attempts, event == "fail")
            self.move(job, event)
            job.later = False

    @rule()
    def rescue_nothing(self) -> None:
        assert self.world.pulses[0].rescue() == []

    @rule(worker=st.integers(0, 2))
    def release(self, worker: int) -> None:
        """A worker stops, and comes back as another."""
        session = self.world.sessions[worker]
        given_back = self.world.runner.run(session.release())
        held = {i: job for i, job in self.model.items() if job.holder is not None and job.holder[0] == worker}
        assert set(given_back) == held.keys()
        for job in held.values():
            self.move(job, "release")
        self.world.renew(session)

    @invariant()
    def the_database_says_the_same(self) -> None:
        known = {i: (job.status, job.attempts) for i, job in getattr(self, "model", {}).items()}
        assert self.world.backstage.states() == known
        assert self.world.backstage.keys() == {
            job.key: i
            for i, job in getattr(self, "model", {}).items()
            if job.key is not None and not job.key.startswith("lost") and job.status in {"pending", "running"}
        }

    @invariant()
    def the_rows_agree_with_one_another(self) -> None:
        assert self.world.backstage.sound()


@contextmanager
def machine(storage: BaseStorage, backstage: Backstage) -> Generator[type[LifeCycle]]:
    class Here(LifeCycle):
        world = World(storage, backstage)

    try:
        yield Here
    finally:
        Here.world.close()


@pytest.mark.parametrize("examples", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_jobs_follow_the_table_of_transitions_whatever_is_done_to_them(
    storage: BaseStorage, backstage: Backstage, examples: int
) -> None:
    with machine(storage, backstage) as lives:
        run_state_machine_as_test(lives, settings=settings(FULL, max_examples=examples))


BREAKS = {
    "the fence of finish": ("finish", " and lease.claim = sent.claim", ""),
    "the fence of finish_completed": ("finish_completed", " and lease.claim = sent.claim", ""),
    "a lost SKIP LOCKED": ("claim", "for update skip locked", "for update"),
    "a lost row lock": ("claim", "for update skip locked", ""),
    "a retry charged twice": (
        "finish",
        "attempts + (event = 5)::int, id\n      from bodies",
        "attempts + 2, id\n      from bodies",
    ),
    "a release that is charged": (
        "release_worker",
        "body.priority, gone.attempts,",
        "body.priority, gone.attempts + 1,",
    ),
    "a key that is not freed": ("cancel", "where (select true from gone where", "where (select false from gone where"),
    **{
        f"a tie that outlives its job in {name}": (name, "and unique_key.job_id = ending.id", "and false")
        for name in ("finish", "cancel")
    },
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_statement_is_noticed(
    dsn: str, storage: PostgresStorage, backstage: Backstage, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has teeth: each of these changes to a statement in memory makes it fail."""
    monkeypatch.setattr(f"{__name__}.WAIT", 3.0)
    name, right, wrong = BREAKS[broken]
    with machine(storage, backstage) as lives:
        statements = storage.statements
        text = statements[name]
        assert right.encode() in text
        replaced: dict[str, bytes] = vars(statements)["_cache"]
        replaced[name] = text.replace(right.encode(), wrong.encode())
        with pytest.raises(AssertionError):
            run_state_machine_as_test(lives, settings=SHORT)


def unfenced(claim: Claim) -> Any:
    return jobs.JOBS.c.id == claim.id


def broken_move(event: Event, **values: Any) -> Any:
    return {**jobs._MOVES, event: {**jobs._MOVES[event], **values}}


BROKEN_STEPS: dict[str, tuple[str, Any]] = {
    "the fence": ("of_claim", unfenced),
    "a release that is charged": ("_MOVES", broken_move("release", attempts=jobs.JOBS.c.attempts + 1)),
    "a retry that is free": ("_MOVES", broken_move("retry", attempts=jobs.JOBS.c.attempts)),
    "a key that is not freed": ("_MOVES", broken_move("cancel", held_key=jobs.JOBS.c.held_key)),
}


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("broken", BROKEN_STEPS)
def test_a_broken_step_is_noticed(
    storage: BaseStorage, backstage: Backstage, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, of SQLite's steps."""
    monkeypatch.setattr(jobs, *BROKEN_STEPS[broken])
    with machine(storage, backstage) as lives, pytest.raises(AssertionError):
        run_state_machine_as_test(lives, settings=SHORT)
