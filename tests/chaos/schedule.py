"""Which faults there are, what each may do to a job, and when they come: from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

__all__ = ["KINDS", "Excuse", "Kind", "Place", "Planned", "plan"]

Place = Literal["worker", "link", "server", "pooler"]
Excuse = Literal["charged", "again", "transaction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault."""

    place: Place
    """What it strikes: a worker, a link (the workers' come first, then the producers'), the server, PgBouncer."""
    lasts: tuple[float, float]
    """The shortest and the longest, in leases."""
    excuses: frozenset[Excuse]
    """What it may do to a job that it touches: cost an attempt, make it start again free of charge, or roll its
    transaction back, which costs an attempt as any failure does."""


def _kind(place: Place, shortest: float, longest: float, *excuses: Excuse) -> Kind:
    return Kind(place=place, lasts=(shortest, longest), excuses=frozenset(excuses))


KINDS: Final[Mapping[str, Kind]] = {
    "worker killed": _kind("worker", 0.2, 0.6, "charged"),
    "worker paused past its lease": _kind("worker", 1.3, 2.0, "charged"),
    "worker told to stop": _kind("worker", 0.8, 1.0, "again"),
    "black hole, held by a proxy": _kind("worker", 1.3, 2.0, "charged", "transaction"),
    "black hole, packets dropped": _kind("worker", 1.3, 2.0, "charged", "transaction"),
    "reply lost after commit": _kind("link", 0.1, 0.3, "transaction"),
    "all backends terminated": _kind("server", 0.1, 0.3, "transaction"),
    "server restarted (immediate)": _kind("server", 0.1, 0.2, "again", "transaction"),
    "failover to the standby": _kind("server", 0.1, 0.2, "again", "transaction"),
    "connections used up": _kind("server", 0.1, 0.15, "transaction"),
    "PgBouncer restarted": _kind("pooler", 0.1, 0.3, "transaction"),
}
"""What is not excused is a bug: an attempt charged for a restart, say, or any second start because of a lost reply."""


_SIDES: Final[Mapping[Place, str]] = {"worker": "client", "link": "client", "server": "server", "pooler": "pooler"}
"""A worker and its link are one place."""


class Planned(NamedTuple):
    """A fault to come; seconds from the beginning."""

    at: float
    until: float
    fault: str
    where: int
    """Which of the workers or links; 0 for the server and PgBouncer."""


def plan(seed: int, seconds: float, faults: Sequence[str], places: Mapping[Place, int], lease: float) -> list[Planned]:
    """Return faults of these kinds, in the order of their time, that end within so many seconds.

    At one place there is one at a time; at different places they overlap.

    Args:
        seed: The same gives the same plan.
        seconds: How long.
        faults: Names in `KINDS`; each comes as often as the others, give or take one.
        places: How many there are of each.
        lease: Of the workers, in seconds.
    """
    chance = random.Random(seed)
    planned: list[Planned] = []
    bag: list[str] = []
    at = lease / 2
    while True:
        bag = bag or chance.sample(list(faults), len(faults))
        fault = bag.pop()
        kind = KINDS[fault]
        where = chance.randrange(places[kind.place])
        at = max(at, _free_at(planned, kind.place, where, lease))
        until = at + lease * chance.uniform(*kind.lasts)
        if until > seconds:
            return sorted(planned)
        planned.append(Planned(at, until, fault, where))
        at += lease * chance.uniform(0.3, 0.9)


def _free_at(planned: Iterable[Planned], place: Place, where: int, lease: float) -> float:
    """Return when the last fault there is over, and what it left is mended."""
    here = (_SIDES[place], where)
    return max((p.until + lease / 2 for p in planned if (_SIDES[KINDS[p.fault].place], p.where) == here), default=0.0)
