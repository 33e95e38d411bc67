"""`dbjobq` as the next release would have it: `python -m tests.deploys.next_release MIGRATIONS …` (see `release`)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def main() -> None:
    folder = Path(sys.argv.pop(1))
    head = max(path.name for path in (folder / "versions").glob("*.py"))[:4]
    patch = pytest.MonkeyPatch()
    patch.setattr("dbjobq.storage.postgres.schema_version.HEAD", head)  # before others import it from there
    patch.setattr("dbjobq.schema.migrations.migrations_dir", lambda: folder)
    from dbjobq.cli import main

    main(prog_name="dbjobq")


if __name__ == "__main__":
    main()
