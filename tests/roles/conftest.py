"""Fixtures for the tests of the database roles."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq.schema.roles import Kind, grant
from tests.storage.database import database

__all__ = ["Roles", "database", "roles"]


class Roles:
    """Makes roles; each is dropped with the test."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.made: list[str] = []

    def make(self, *kinds: Kind) -> str:
        """A new role of these kinds; return its DSN."""
        name, password = f"dbjobq role {uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(password))
            )
        self.made.append(name)
        for kind in kinds:
            grant(name, kind, self.dsn)
        return make_conninfo(self.dsn, user=name, password=password)

    def drop(self) -> None:
        with psycopg.connect(self.dsn) as connection:
            for name in map(sql.Identifier, self.made):
                connection.execute(sql.SQL("drop owned by {}").format(name))
                connection.execute(sql.SQL("drop role {}").format(name))


@pytest.fixture
def roles(dsn: str) -> Iterator[Roles]:
    roles = Roles(dsn)
    yield roles
    roles.drop()
