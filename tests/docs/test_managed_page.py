"""docs/managed-postgresql.md: the rights that it names are enough to migrate, to grant, and to work."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbjobq import JobQueue, PostgresStorage, schema
from dbjobq.schema.roles import grant
from tests.storage.database import Database
from tests.support.page import ROOT

STATEMENTS = re.findall(
    r"^```sql\n(.*?)\n```$", (ROOT / "docs/managed-postgresql.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture
def role(empty_dsn: str) -> Iterator[str]:
    """A role without any rights."""
    name = f"owner_{uuid.uuid4().hex[:8]}"
    with Database(empty_dsn) as database:
        database.connection.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        yield name
        database.connection.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))


@pytest.mark.parametrize("statement", STATEMENTS[:2])
def test_the_right_that_the_page_names_is_enough(empty_dsn: str, role: str, statement: str) -> None:
    app = conninfo_to_dict(empty_dsn)["dbname"]
    with Database(empty_dsn) as database:
        as_it_is = statement.replace("database app", f'database "{app}"').replace("jobs_owner", role)
        database.connection.execute(as_it_is.encode())
    theirs = make_conninfo(empty_dsn, options=f"-c role={role}")
    schema.migrate(theirs)
    assert grant(role, "worker", theirs)
    with JobQueue(PostgresStorage(theirs)) as queue:
        assert queue.get_job(queue.enqueue("some.function")) is not None


def test_the_page_names_three_rights() -> None:
    assert [statement.split()[0] for statement in STATEMENTS] == ["grant", "create", "grant"]
