"""Deliberate breaks of the code, and the tests that must notice each: `python -m tests.mutants`.

A test that never fails proves nothing. Each break is a mistake that somebody could make (a fence left out, a lease that
lasts too long), with the tests that are there to catch it. The checkout is copied, one break at a time is put into the
copy, and those tests must turn red. A break that they do not notice is reported, and the exit code is 1.

    python -m tests.mutants                 # all of them: some ten minutes
    python -m tests.mutants --sample 6      # some, another choice for each commit: what CI runs
    python -m tests.mutants KEY …           # those whose names contain one of these words

A break names its text by what stands in the file now. Where that text has changed, the break no longer fits, and
`tests/unit/test_mutants.py` says so: write the break anew, do not drop it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.breaks import BREAKS, Break

ROOT: Final = Path(__file__).parents[1]

NOTICED: Final = 1
"""pytest's exit code when tests ran and some failed."""

LONGEST: Final = 120
"""Seconds that one test may take: what a break makes hang has been noticed, too."""


class Verdict(NamedTuple):
    """What came of one break."""

    noticed: bool
    said: str
    seconds: float


def apply(it: Break, root: Path) -> None:
    """Put a break into the files below a folder.

    Raises:
        ValueError: Its text does not stand there exactly once.
    """
    file = root / it.file
    text = file.read_text("utf-8")
    if (found := text.count(it.right)) != 1:
        raise ValueError(f"{it.name!r}: its text stands {found} times in {it.file}, not once: {it.right!r}")
    file.write_text(text.replace(it.right, it.wrong), "utf-8")


@contextmanager
def broken(it: Break, copy: Path) -> Generator[None]:
    """Have a break in a copy of the checkout while the block runs."""
    file = copy / it.file
    before = file.read_bytes()
    apply(it, copy)
    try:
        yield
    finally:
        file.write_bytes(before)


def copied(to: Path) -> None:
    """Copy what git tracks, or would, and nothing else."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def judged(copy: Path, tests: Sequence[str]) -> Verdict:
    """Run tests in the copy, until the first that fails."""
    begin = time.monotonic()
    options = ["-x", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider", "--timeout", str(LONGEST)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    said = lines[0] if lines else f"exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-500:]}"
    return Verdict(done.returncode == NOTICED and "FAILED" in said, said, time.monotonic() - begin)


def chosen(words: Sequence[str], sample: int | None, seed: str) -> list[Break]:
    """Return the breaks with one of these words in their names, or all; of those, as many as wanted."""
    found = [it for it in BREAKS if not words or any(word in it.name for word in words)]
    return found if sample is None else random.Random(seed).sample(found, min(sample, len(found)))


def commit() -> str:
    """Return the checkout's commit: a sample is the same for all who look at it."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> int:
    """Run the breaks that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(description="Break the code on purpose; the tests must notice.")
    parser.add_argument("words", nargs="*", metavar="KEY", help="only breaks whose names contain one of these")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, chosen by the commit")
    parser.add_argument("--seed", default=commit(), help="what the choice hangs on; the commit by default")
    parser.add_argument("--list", action="store_true", help="name them, and run nothing")
    given = parser.parse_args()
    breaks = chosen(given.words, given.sample, given.seed)
    if given.list:
        print(*(it.name for it in breaks), sep="\n")
        return 0
    survivors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="dbjobq-mutants-") as folder:
        copy = Path(folder)
        copied(copy)
        sound = judged(copy, sorted({test for it in breaks for test in it.tests}))
        if "exit code 0" not in sound.said:
            print(f"the tests fail without any break: {sound.said}")
            return 2
        for it in breaks:
            with broken(it, copy):
                verdict = judged(copy, it.tests)
            print(f"{'noticed' if verdict.noticed else 'SURVIVED'} {verdict.seconds:5.1f} s  {it.name}", flush=True)
            if not verdict.noticed:
                print(f"    {verdict.said}")
                survivors.append(it.name)
    print(f"{len(breaks) - len(survivors)} breaks noticed, {len(survivors)} not")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
