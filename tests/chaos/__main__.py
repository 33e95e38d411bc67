"""`python -m tests.chaos --minutes 10 --seed 1`: chaos for as long as you like, and a table of what came of it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.chaos.faults import missing
from tests.chaos.report import Line, markdown, merged, told
from tests.chaos.run import run
from tests.chaos.schedule import KINDS

ROUND = 90.0
"""Seconds of faults before everything is drained and compared."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long faults are made")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 10**6, help="of the first round; the next is one more"
    )
    parser.add_argument("--lease", type=float, default=3.0, help="of the workers, in seconds")
    parser.add_argument("--pace", type=float, default=1.0, help="how busy the producers are")
    parser.add_argument(
        "--faults", default=",".join(name.replace(",", "") for name in KINDS), help="some of: %(default)s"
    )
    given = parser.parse_args()
    names = {name.replace(",", ""): name for name in KINDS}
    wanted = [names[word.strip()] for word in given.faults.split(",")]
    for name in wanted:
        if lacking := missing(name):
            print(f"without “{name}”: {lacking}")
    faults = [name for name in wanted if missing(name) is None]
    left, seed, tables, violations = given.minutes * 60, given.seed, list[list[Line]](), 0
    while left > 0:
        outcome = run(seed=seed, seconds=min(left, ROUND), faults=faults, lease=given.lease, pace=given.pace)
        print(f"seed {seed}: {outcome}")
        print(*(f"  {line}\n" for line in told(outcome.evidence, outcome.findings)), sep="", end="")
        for one in outcome.findings.again:
            print(f"  again: job {one.job}, run {one.run}: {one.fault}")
        tables.append(outcome.lines)
        violations += len(outcome.findings.violations)
        left, seed = left - ROUND, seed + 1
    print(markdown(merged(tables)))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
