"""`dbjobq` as a release has it: this one, the one before it, and a next one that brings migrations.

There is no next release to be had, so it is made: this code, with migrations of its own on top (`next_release`). The
release before this one is what its tag holds, where this clone has one: from the first tag on, real old code runs
beside whatever migrations have come since.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from dbjobq.schema import migrations_dir
from dbjobq.storage.postgres.schema_version import HEAD
from tests.cli.support import Process, started

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).parents[2]

MIGRATION: Final = """'{summary}.'
from dbjobq.schema import apply

revision, down_revision, compatible_from = {revision!r}, {before!r}, {compatible_from!r}
UPGRADE = {upgrade!r}
DOWNGRADE = {downgrade!r}

def upgrade():
    apply(UPGRADE)

def downgrade():
    apply(DOWNGRADE)
"""


class Migration(NamedTuple):
    """One that a next release might have."""

    summary: str
    upgrade: tuple[str, ...]
    downgrade: tuple[str, ...]
    breaking: bool = False


def column(table: str, definition: str) -> Migration:
    """A column more, named `more`: a table a migration, as docs/migrations.md has it."""
    upgrade = f"alter table {{schema}}.{table} add column more {definition}"
    return Migration(f"More in {table}", (upgrade,), (f"alter table {{schema}}.{table} drop column more",))


ADDITIVE: Final = (
    column("job", "text default 'more'"),
    column("ready", "int not null default 1"),
    column("lease", "int not null default 1"),
    column("done", "int"),
    column("worker", "timestamptz"),
    Migration("A table more", ("create table {schema}.more (id int primary key)",), ("drop table {schema}.more",)),
    Migration(
        "More in the view",
        (
            """
            do $$ begin
                execute 'create or replace view {schema}.jobs as select jobs.*, job.more from ('
                    || rtrim(pg_get_viewdef('{schema}.jobs'::regclass), ';')
                    || ') as jobs join {schema}.job on job.id = jobs.id';
            end $$
            """,
        ),
        (),
    ),
)
INDEX: Final = Migration(
    "An index more",
    ("create index concurrently done_finished on {schema}.done (finished_at)",),
    ("drop index concurrently if exists {schema}.done_finished",),
)
BREAKING: Final = Migration(
    "A column that older releases know by another name",
    ("alter table {schema}.ready rename column attempts to tries",),
    ("alter table {schema}.ready rename column tries to attempts",),
    breaking=True,
)


@dataclass(frozen=True)
class Release:
    """How to run its `dbjobq`."""

    module: tuple[str, ...] = ("dbjobq",)
    """What follows `python -m`."""
    path: tuple[Path, ...] = (ROOT,)
    """Where its modules are; the handlers that workers run are the tests' own."""
    head: str = HEAD
    """Its newest migration."""

    @contextmanager
    def run(self, directory: Path, dsn: str, *args: str, **env: str) -> Generator[Process]:
        """Start `dbjobq …`; it is ended with the block."""
        env = {"PYTHONPATH": os.pathsep.join(map(str, self.path)), "DBJOBQ_TEST_DIARY": str(directory / "diary"), **env}
        with started(directory, dsn, *args, module=self.module, **env) as process:
            yield process

    def says(self, directory: Path, dsn: str, *args: str) -> tuple[int, str]:
        """Run `dbjobq …` to its end; return its exit code, and all that it said."""
        with self.run(directory, dsn, *args) as process:
            return process.exit_code(60), process.log


def next_release(folder: Path, *migrations: Migration) -> Release:
    """This code, with these migrations more, in a new folder."""
    return Release(("tests.deploys.next_release", str(folder)), head=put_on_top(folder, *migrations))


def put_on_top(folder: Path, *migrations: Migration) -> str:
    """Make a copy of our migrations with these on top, in a new folder; return the newest's revision."""
    shutil.copytree(migrations_dir(), folder)
    before, compatible_from = HEAD, compatible_now()
    for migration in migrations:
        revision = f"{int(before) + 1:04}"
        compatible_from = revision if migration.breaking else compatible_from
        more = {"revision": revision, "before": before, "compatible_from": compatible_from}
        (folder / "versions" / f"{revision}_test.py").write_text(MIGRATION.format(**migration._asdict(), **more))
        before = revision
    return before


def last_tag() -> str | None:
    """The newest tag of a release here, if there is one whose code still runs on our tables."""
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*").decode().strip()
    return tag if tag and compatible_now() <= head_of(tag) else None


def released(tag: str, folder: Path) -> Release:
    """The code of a release, in a new folder."""
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=git("archive", tag, "dbjobq"), check=True)
    return Release(path=(folder, ROOT), head=head_of(tag))


def head_of(tag: str) -> str:
    """The newest migration of a release."""
    found = git("grep", "--no-filename", "^HEAD: Final = ", tag, "--", "dbjobq/storage")
    (head,) = re.findall(rb'"(\d+)"', found)
    return str(head.decode())


def compatible_now() -> str:
    """The oldest library that runs on our tables."""
    (newest,) = (migrations_dir() / "versions").glob(f"{HEAD}_*.py")
    (compatible_from,) = re.findall(r'^compatible_from = "(\d+)"', newest.read_text(), re.MULTILINE)
    return str(compatible_from)


def git(*args: str) -> bytes:
    """What git says of this checkout; nothing if it is none."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False).stdout
