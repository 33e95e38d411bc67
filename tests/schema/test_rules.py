"""The rules for migrations (docs/migrations.md), and that ours keep them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import dbjobq
from dbjobq.schema import migrations_dir
from tests.deploys.release import ADDITIVE, BREAKING, INDEX
from tests.schema.rules import Text, broken_rules

RELEASED: Final = {
    "0001": "ebcadb51b7234508",
    "0002": "3c853b04d5ed74f9",
    "0003": "4836cd0bff7678db",
    "0004": "8e8f27c030a69a4a",
    "0005": "112117decb7056ef",
}
"""What each migration does, as a number: a database that has it will not run it again.

A migration that was in a release must stay as it is: write another. One that was in none may still change, and its
number here with it.
"""


def ours() -> list[Text]:
    """Our migrations, the oldest first."""
    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    modules = [script.module for script in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    return [Text(m.revision, m.compatible_from, m.UPGRADE, m.DOWNGRADE) for m in modules]


def test_a_migration_stays_what_it_was() -> None:
    assert {migration.revision: migration.digest() for migration in ours()} == RELEASED


def test_our_migrations_keep_the_rules() -> None:
    before = None
    for migration in ours():
        assert list(broken_rules(migration, before)) == []
        before = migration.compatible_from


def test_those_of_the_tests_keep_them_too() -> None:
    for migration in (*ADDITIVE, INDEX):
        assert list(broken_rules(Text("0002", "0001", migration.upgrade), "0001")) == []
    assert list(broken_rules(Text("0002", "0002", BREAKING.upgrade), "0001")) == []
    assert len(list(broken_rules(Text("0002", "0001", BREAKING.upgrade), "0001"))) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["create index ready_more on {schema}.ready (more)"],
        ["create unique index ready_more on {schema}.ready (more)"],
        ["create index concurrently a on {schema}.done (more)", "alter table {schema}.done add column more int"],
        ["drop index {schema}.ready_moved"],
        ["alter table {schema}.job alter column priority type bigint"],
        ["alter table {schema}.job alter priority set data type bigint"],
        ["alter table {schema}.job alter column unique_key set not null"],
        ["alter table {schema}.job add column more int not null"],
        ["ALTER TABLE {schema}.job\n  ADD COLUMN more uuid DEFAULT gen_random_uuid()"],
        ["alter table {schema}.job add column more timestamptz not null default clock_timestamp()"],
        ["alter table {schema}.job add column more bigserial"],
        ["alter table {schema}.job add constraint more check (priority > 0)"],
        ["alter table {schema}.job add foreign key (queue) references {schema}.queue"],
        ["alter table {schema}.job add column a int", "alter table {schema}.ready add column a int"],
        ["alter table {schema}.job drop column timeout"],
        ["alter table {schema}.job rename column timeout to seconds"],
        ["drop view {schema}.jobs"],
        ["lock table {schema}.job"],
        ["truncate {schema}.done"],
        ["reindex table {schema}.job"],
    ],
    ids=lambda statements: statements[0].split("{schema}")[0],
)  # fmt: skip
def test_what_would_stall_or_stop_those_at_work_is_refused(statements: list[str]) -> None:
    assert len(list(broken_rules(Text("0002", "0001", tuple(statements)), "0001"))) == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["alter table {schema}.job add column more text"],
        ["alter table {schema}.job add column more int not null default 0"],
        ["alter table {schema}.job add column more timestamptz not null default now()"],
        ["alter table {schema}.job add constraint more check (priority > 0) not valid"],
        ["alter table {schema}.job validate constraint more"],
        ["create index concurrently a on {schema}.done (claim)", "drop index concurrently {schema}.done_dead"],
        ["drop index concurrently if exists {schema}.ready_moved"],
        ["create table {schema}.more (id int)", "create index more_id on {schema}.more (id)",
         "alter table {schema}.more alter column id set not null", "alter table {schema}.job add column more int"],
    ],
    ids=lambda statements: statements[0].split("{schema}")[0],
)  # fmt: skip
def test_what_nobody_notices_is_not(statements: list[str]) -> None:
    assert list(broken_rules(Text("0002", "0001", tuple(statements)), "0001")) == []


def test_what_the_releases_since_some_time_do_not_use_may_go() -> None:
    drop = ("alter table {schema}.job drop column timeout",)
    assert list(broken_rules(Text("0004", "0003", drop), "0001")) == []


@pytest.mark.parametrize(("before", "now"), [("0002", "0001"), ("0001", "0004")])
def test_it_says_who_runs_on_it_and_takes_nothing_back(before: str, now: str) -> None:
    assert len(list(broken_rules(Text("0003", now, ()), before))) == 1


def test_statements_return_their_columns_by_name() -> None:
    """Otherwise a column more breaks the prepared statements of those at work: the type of their result has changed."""
    sql = Path(dbjobq.__file__).parent / "storage" / "sql"
    statements = [file for file in sql.rglob("*.sql") if file.parent.name != "parts"]
    assert len(statements) > 50
    for file in statements:
        code = "\n".join(line for line in file.read_text("utf-8").splitlines() if not line.startswith("--"))
        begins = list(re.finditer(r"^(with|select|insert|update|delete|lock)\b", code, re.MULTILINE))
        assert begins, file
        returned = code[begins[-1].start() :]
        assert not re.search(r"^(select|returning)\s+(\w+\.)?\*", returned, re.MULTILINE), file.name
