"""Each kind of fault for a while, then all at once; nothing is lost, and what happened twice is explained."""

from __future__ import annotations

import pytest

from tests.chaos.faults import missing
from tests.chaos.report import markdown, told
from tests.chaos.run import Outcome, run
from tests.chaos.schedule import KINDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SEED = 20
LONG = 8.0
"""A lease, in seconds, that no fault of the server outlasts: it may not cost a single attempt."""
SHORT = 3.0


def check(outcome: Outcome) -> None:
    print(f"seed {SEED}: {outcome}", markdown(outcome.lines), *told(outcome.evidence, outcome.findings), sep="\n")
    assert outcome.findings.violations == []
    assert all(line.injected and line.recovered == line.injected for line in outcome.lines)


@pytest.mark.parametrize("fault", KINDS)
def test_nothing_is_lost_and_what_happens_twice_is_explained(fault: str) -> None:
    if lacking := missing(fault):
        pytest.skip(lacking)
    of_server = KINDS[fault].place in {"server", "pooler"}
    outcome = run(seed=SEED, seconds=14.0, faults=[fault], lease=LONG if of_server else SHORT, pace=0.6)
    assert len(outcome.evidence.faults) >= 2
    check(outcome)


def test_nothing_is_lost_when_everything_happens_at_once() -> None:
    faults = [fault for fault in KINDS if missing(fault) is None]
    outcome = run(seed=SEED, seconds=40.0, faults=faults, lease=SHORT, pace=0.6)
    assert len(outcome.evidence.faults) >= 10
    check(outcome)
