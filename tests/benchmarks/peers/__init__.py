"""The systems that are compared, a module each; what each needs is imported when it is used."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.peers.bare import Bare
from tests.benchmarks.peers.chancy import Chancy
from tests.benchmarks.peers.graphile import Graphile
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.pgqueuer import PgQueuer
from tests.benchmarks.peers.procrastinate import Procrastinate
from tests.benchmarks.peers.system import System

__all__ = ["SYSTEMS"]

SYSTEMS: Final[tuple[type[System], ...]] = (Ours, Bare, Graphile, PgQueuer, Chancy, Procrastinate)
