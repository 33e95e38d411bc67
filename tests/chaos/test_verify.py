"""The comparison has teeth: each promise that is broken in a made-up ledger is found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.chaos.ledger import Call, Execution, Ledger
from tests.chaos.report import markdown, summary
from tests.chaos.tables import Done, Failure, JobRow, Refusal, Tables
from tests.chaos.verify import Evidence, Findings, Happened, verify

LEASE = 8.0
ALICE, BOB = "host:1:aa", "host:2:bb"
PIDS = {ALICE: 1, BOB: 2}
GONE = f"WorkerLost: worker {ALICE} stopped renewing its lease while it held this job"


@dataclass
class Story:
    """What happened, to be told wrongly."""

    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    runs: dict[str, Execution] = field(default_factory=dict[str, Execution])
    jobs: dict[str, JobRow] = field(default_factory=dict[str, JobRow])
    places: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    done: dict[str, Done] = field(default_factory=dict[str, Done])
    failures: list[Failure] = field(default_factory=list[Failure])
    effects: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    notes: set[str] = field(default_factory=set[str])
    faults: list[Happened] = field(default_factory=list[Happened])
    refusals: list[Refusal] = field(default_factory=list[Refusal])

    def job(self, name: str, kind: str = "one", **more: Any) -> None:
        """A job of this name and tag, enqueued and not yet run."""
        usual: dict[str, Any] = {"type": "chaos.noop", "tag": name, "max_retries": 3, "created_at": 10.0}
        self.jobs[name] = JobRow(**{**usual, **more})
        ids, key = (name,), self.jobs[name].key
        self.calls[name] = Call(number=name, kind=kind, tags=(name,), at=10.0, pid=9, key=key, ids=ids, answered=10.1)
        self.places[name] = ("ready",)
        if kind == "commit":
            self.notes.add(name)

    def run(self, name: str, worker: str = BOB, start: float = 11.0, how: str | None = "returned") -> str:
        """The next execution, in the attempt that the failures so far make it."""
        attempt = sum(failure.job == name for failure in self.failures)
        run = f"{name}/{len(self.runs)}"
        end = None if how is None else start + 0.5
        self.runs[run] = Execution(
            run=run, job=name, attempt=attempt, worker=worker, pid=PIDS[worker], start=start, end=end, how=how
        )
        return run

    def fail(self, name: str, error: str, at: float) -> None:
        """An attempt is charged."""
        attempts = 1 + sum(failure.job == name for failure in self.failures)
        self.failures.append(Failure(job=name, attempts=attempts, error=error, at=at))

    def end(self, name: str, status: int = 2, result: str | None = None, worker: str = BOB) -> None:
        """It is completed, or failed."""
        attempts = sum(failure.job == name for failure in self.failures)
        self.done[name] = Done(status=status, attempts=attempts, worker=worker, result=result, finished_at=20.0)
        self.places[name] = ("done",)

    def evidence(self) -> Evidence:
        ledger = Ledger(tuple(self.calls.values()), tuple(self.runs.values()), frozenset({1, 2, 9}))
        tables = Tables(
            jobs=self.jobs,
            places=self.places,
            done=self.done,
            failures=tuple(self.failures),
            effects=self.effects,
            notes=frozenset(self.notes),
        )
        return Evidence(ledger, tables, self.faults, self.refusals, LEASE)

    def findings(self) -> Findings:
        return verify(self.evidence())


def good() -> Story:
    """Everything that may happen, told as it should have been."""
    story = Story()
    story.job("plain")
    story.run("plain")
    story.end("plain")
    story.job("result", type="chaos.short")
    story.end("result", result=story.run("result"))
    story.job("effect", "commit", type="chaos.effect")
    story.effects["effect"] = (story.run("effect"),)
    story.end("effect")
    story.job("flaky", type="chaos.flaky")
    story.run("flaky", how="Hiccup")
    story.fail("flaky", "Hiccup: flaky", 11.6)
    story.end("flaky", result=story.run("flaky", start=12.0))
    story.job("killed")
    story.run("killed", ALICE, how=None)
    story.fail("killed", GONE, 14.0)
    story.run("killed", start=14.1)
    story.end("killed")
    story.job("delivered again", type="chaos.nap")
    story.run("delivered again", ALICE, start=11.9)
    story.end("delivered again", result=story.run("delivered again", start=12.7))
    story.job("once", max_retries=0)
    story.run("once", ALICE, start=11.8, how=None)
    story.fail("once", GONE, 14.0)
    story.end("once", status=3, worker=ALICE)
    story.job("late", type="chaos.nap")
    story.run("late", ALICE)
    story.fail("late", GONE, 14.0)
    story.end("late", result=story.run("late", start=14.2))
    story.refusals.append(Refusal(job="late", pid=1))
    story.job("keyed", "keyed", key="k")
    story.run("keyed")
    story.end("keyed")
    story.job("next", "keyed", key="k", created_at=20.5)
    story.run("next", start=21.0)
    story.end("next")
    story.done["next"] = replace(story.done["next"], finished_at=21.6)
    story.calls["unanswered"] = Call(number="unanswered", kind="bulk", tags=("x", "y"), at=12.0, pid=9)
    story.calls["undone"] = Call(number="undone", kind="rollback", tags=("z",), at=12.0, pid=9, rolled_back=True)
    story.faults.append(Happened("worker killed", 12.0, 13.0, frozenset({1})))
    story.faults.append(Happened("server restarted (immediate)", 12.2, 12.4, None))
    return story


def test_a_good_story_is_believed_and_what_happened_twice_is_told() -> None:
    story = good()
    findings = story.findings()
    assert findings.violations == []
    assert {(one.job, one.fault) for one in findings.again} == {
        ("killed", "worker killed"),
        ("delivered again", "server restarted (immediate)"),
        ("late", "worker killed"),
    }
    assert findings.charged == {"worker killed": 3}
    killed, restarted = summary(story.evidence(), findings)
    assert (killed.injected, killed.recovered, killed.lost, killed.charged, killed.again) == (1, 1, 0, 3, 2)
    assert (restarted.injected, restarted.again) == (1, 1)
    assert markdown([killed]).splitlines()[-1].startswith("| worker killed | 1 | 1 |")


def lose_a_job(story: Story) -> None:
    for of in (story.jobs, story.places, story.done, story.runs):
        for name in [name for name in of if name.startswith("plain")]:
            del of[name]


def leave_one_running(story: Story) -> None:
    story.places["plain"] = ("lease",)
    del story.done["plain"]


def keep_one_in_two_places(story: Story) -> None:
    story.places["plain"] = ("ready", "done")


def keep_a_place_without_a_body(story: Story) -> None:
    story.places["nobody"] = ("ready",)


def keep_a_body_without_a_place(story: Story) -> None:
    story.jobs["half"] = replace(story.jobs["plain"], tag="half")
    story.calls["half"] = replace(story.calls["plain"], number="half", tags=("half",), ids=None)


def write_half_a_bulk(story: Story) -> None:
    story.job("x")
    del story.calls["x"]
    story.run("x")
    story.end("x")


def write_what_was_rolled_back(story: Story) -> None:
    story.job("z", "rollback")
    story.calls["z"] = replace(story.calls["z"], ids=None, rolled_back=True)
    del story.calls["undone"]
    story.run("z")
    story.end("z")
    story.notes.add("z")


def commit_the_job_without_the_rest(story: Story) -> None:
    story.notes.clear()


def enqueue_twice(story: Story) -> None:
    story.job("copy", tag="plain")
    del story.calls["copy"]
    story.run("copy")
    story.end("copy")


def enqueue_from_nowhere(story: Story) -> None:
    story.job("stray")
    del story.calls["stray"]
    story.run("stray")
    story.end("stray")


def answer_with_another_job(story: Story) -> None:
    story.calls["plain"] = replace(story.calls["plain"], ids=("result",))


def answer_with_another_key(story: Story) -> None:
    story.calls["keyed"] = replace(story.calls["keyed"], ids=("plain",))


def share_a_key(story: Story) -> None:
    story.jobs["next"] = replace(story.jobs["next"], created_at=19.9)


def complete_what_never_ran(story: Story) -> None:
    del story.runs[next(run for run in story.runs if run.startswith("plain"))]


def complete_what_did_not_return(story: Story) -> None:
    run = next(run for run in story.runs if run.startswith("plain"))
    story.runs[run] = replace(story.runs[run], how=None, end=None)


def count_the_late_result(story: Story) -> None:
    run = next(run for run in story.runs.values() if run.job == "late" and run.worker == ALICE)
    story.done["late"] = replace(story.done["late"], result=run.run)


def count_what_was_refused(story: Story) -> None:
    story.refusals.append(Refusal(job="plain", pid=2))


def fail_too_early(story: Story) -> None:
    story.done["killed"] = replace(story.done["killed"], status=3)


def write_an_effect_twice(story: Story) -> None:
    story.effects["effect"] *= 2


def write_an_effect_of_nobody(story: Story) -> None:
    story.effects["plain"] = ("plain/0",)


def lose_an_effect(story: Story) -> None:
    story.effects.clear()


def charge_twice(story: Story) -> None:
    story.done["killed"] = replace(story.done["killed"], attempts=2)
    run = next(run for run in story.runs.values() if run.job == "killed" and run.worker == BOB)
    story.runs[run.run] = replace(run, attempt=2)


def charge_for_lost_connections(story: Story) -> None:
    story.faults[:] = [Happened("all backends terminated", 12.2, 12.2, None)]


def charge_for_another_worker(story: Story) -> None:
    story.faults[0] = story.faults[0]._replace(pids=frozenset({2}))


def charge_long_after(story: Story) -> None:
    story.faults[0] = story.faults[0]._replace(at=2.0, healed=3.0)


def charge_for_what_did_not_raise(story: Story) -> None:
    run = next(run for run in story.runs.values() if run.how == "Hiccup")
    story.runs[run.run] = replace(run, how="returned")


def start_again_for_no_reason(story: Story) -> None:
    story.runs["plain/0"] = replace(story.runs["plain/0"], start=5.0, end=5.5)  # and written long before the fault
    story.run("plain", start=19.0)


def start_again_for_a_fault_elsewhere(story: Story) -> None:
    story.faults[1] = story.faults[1]._replace(at=15.0, healed=15.1)


def start_once_twice(story: Story) -> None:
    story.run("once", start=12.6)


def start_beyond_the_last_attempt(story: Story) -> None:
    story.jobs["killed"] = replace(story.jobs["killed"], max_retries=0)


def run_what_is_not_there(story: Story) -> None:
    story.run("ghost")


LIES: Mapping[Callable[[Story], None], str] = {
    lose_a_job: "job plain was acknowledged and is lost",
    leave_one_running: "job plain was acknowledged and is lost",
    keep_one_in_two_places: "job plain is in ready, done, not in done alone",
    keep_a_place_without_a_body: "job nobody is in ready, and has no body",
    keep_a_body_without_a_place: "job half is in no place, not in done alone",
    write_half_a_bulk: "call unanswered (bulk): 1 of 2 jobs are there",
    write_what_was_rolled_back: "call z was rolled back, and its job is there",
    commit_the_job_without_the_rest: "call effect: its transaction was committed by halves",
    enqueue_twice: "one enqueue made 2 jobs: plain, copy",
    enqueue_from_nowhere: "job stray was enqueued by nobody",
    answer_with_another_job: "call plain (one) was answered with other jobs than it asked for",
    answer_with_another_key: "call keyed (keyed) was answered with other jobs than it asked for",
    share_a_key: "jobs keyed and next had 'k' at the same time",
    complete_what_never_ran: "job plain is completed by host:2:bb, where attempt 1 has not returned",
    complete_what_did_not_return: "job plain is completed by host:2:bb, where attempt 1 has not returned",
    count_the_late_result: "job late has the result of late/",
    count_what_was_refused: "job plain: process 2 was refused, and its result was counted",
    fail_too_early: "job killed failed after 1 attempts of 4",
    write_an_effect_twice: "job effect has 2 effects instead of 1",
    write_an_effect_of_nobody: "job plain has 1 effects instead of 0",
    lose_an_effect: "job effect has 0 effects instead of 1",
    charge_twice: "job killed: 2 attempts were charged for the failures [1]",
    charge_for_lost_connections: "job killed: no fault explains why attempt 1 was charged: WorkerLost",
    charge_for_another_worker: "job killed: no fault explains why attempt 1 was charged: WorkerLost",
    charge_long_after: "job killed: no fault explains why attempt 1 was charged: WorkerLost",
    charge_for_what_did_not_raise: "job flaky: attempt 1 is said to have raised, and has not",
    start_again_for_no_reason: "job plain: no fault explains why it started again",
    start_again_for_a_fault_elsewhere: "job delivered again: no fault explains why it started again",
    start_once_twice: "job once may start once, and started 2 times",
    start_beyond_the_last_attempt: "job killed started in attempt 2 of 1",
    run_what_is_not_there: "job ghost ran, and is not there",
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_broken_promise_is_found(lie: Callable[[Story], None]) -> None:
    story = good()
    lie(story)
    assert [said for said in story.findings().violations if said.startswith(LIES[lie])]


def test_a_short_restart_may_not_cost_an_attempt_and_one_that_outlasts_the_lease_may() -> None:
    story = good()
    story.faults = [Happened("server restarted (immediate)", 12.0, 12.3, None)]
    assert [said for said in story.findings().violations if "no fault explains why attempt 1 was charged" in said]
    story.faults = [Happened("server restarted (immediate)", 12.0, 14.5, None)]
    assert story.findings().violations == []


def test_only_a_transactional_job_may_fail_with_its_connection() -> None:
    story = good()
    story.faults.append(Happened("all backends terminated", 11.0, 11.2, None))
    for name, kind in (("plainer", "chaos.noop"), ("rolled back", "chaos.effect")):
        story.job(name, type=kind)
        story.run(name)
        story.fail(name, "StorageUnavailable: PostgreSQL did not answer", 11.6)
        run = story.run(name, start=12.6)
        story.effects |= {name: (run,)} if kind == "chaos.effect" else {}
        story.end(name)
    said = story.findings().violations
    assert [one for one in said if "rolled back" in one] == []
    assert [one for one in said if one.startswith("job plainer: no fault explains why attempt 1 was charged")]


@pytest.mark.parametrize(
    ("kind", "at", "pid", "may"),
    [
        ("chaos.effect", 19.0, 2, True),
        ("chaos.effect", 20.5, 2, True),  # its result was written, its COMMIT was not answered yet
        ("chaos.effect", 23.0, 2, False),
        ("chaos.effect", 20.5, 1, False),
        ("chaos.noop", 20.5, 2, False),
    ],
)
def test_only_whose_commit_may_be_unheard_may_be_refused_what_was_counted(
    kind: str, at: float, pid: int, may: bool
) -> None:
    story = Story(faults=[Happened("reply lost after commit", at, at + 0.1, frozenset({pid}))])
    story.job("unheard", type=kind)
    run = story.run("unheard", start=19.5)
    story.effects |= {"unheard": (run,)} if kind == "chaos.effect" else {}
    story.end("unheard")
    story.refusals.append(Refusal(job="unheard", pid=2))
    assert [said for said in story.findings().violations if "unheard" in said] == (
        [] if may else ["job unheard: process 2 was refused, and its result was counted"]
    )
