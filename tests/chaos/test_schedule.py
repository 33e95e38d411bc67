"""The plan of faults: pure, so cheap to be sure of."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.schedule import KINDS, Place, Planned, plan

PLACES: dict[Place, int] = {"worker": 4, "link": 6, "server": 1, "pooler": 1}


def side(planned: Planned) -> tuple[str, int]:
    place = KINDS[planned.fault].place
    return ("client" if place == "link" else place.replace("worker", "client"), planned.where)


def test_every_kind_of_fault_can_be_made() -> None:
    assert FAULTS.keys() == KINDS.keys()


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_keeps_to_its_time_and_does_one_thing_at_a_place(seed: int) -> None:
    planned = plan(seed, 300.0, list(KINDS), PLACES, 3.0)
    assert planned == plan(seed, 300.0, list(KINDS), PLACES, 3.0)
    assert planned == sorted(planned)
    assert all(0 < one.at < one.until <= 300.0 for one in planned)
    assert all(one.where < PLACES[KINDS[one.fault].place] for one in planned)
    assert not any(a.until > b.at and side(a) == side(b) for a, b in combinations(planned, 2))
    often = Counter(one.fault for one in planned).values()
    assert min(often) >= 5
    assert max(often) - min(often) <= 1


def test_other_seeds_make_other_plans_and_faults_at_different_places_overlap() -> None:
    one, other = (plan(seed, 300.0, list(KINDS), PLACES, 3.0) for seed in (1, 2))
    assert one != other
    assert any(a.until > b.at for a, b in combinations(one, 2))
