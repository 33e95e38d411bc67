"""One PostgreSQL server per test run, one fresh database per test.

Nothing starts until a test wants a database. With pytest-xdist the controller starts the server and tells its
workers the address. Which server that is: `tests/support/server.py`; the end of the report names it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

import dbjobq
from dbjobq import schema
from dbjobq.storage.postgres.worker import claim_start
from tests.storage.backstage import Backstage, backstage_of
from tests.support.server import Databases, NoServer, Server
from tests.support.storages import storage_at

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


class Postgres(NamedTuple):
    """The server of this run, as the tests are told of it."""

    dsn: str
    """Leads to a database that is not ours; its role may create databases."""
    template: str
    """The migrated database that others are copied from; nobody may be connected to it."""


SERVER = pytest.StashKey[Server]()

# How long an example takes says something about the machine.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def start(server: Server) -> Postgres:
    """Start the server unless it runs; end the run if there is none."""
    try:
        server.start(schema.migrate)
    except NoServer as error:
        pytest.exit(str(error), returncode=3)
    return Postgres(server.dsn, server.template)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    config.stash[SERVER] = Server()
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", "") and config.pluginmanager.hasplugin("cacheprovider"):
        # Some hundred processes are started, and each would compile all that it imports.
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(SERVER, None):
        server.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(
    node: Any,
) -> None:  # pytest-xdist, in the controller, for each worker; it has no types
    node.workerinput["postgres"] = tuple(start(node.config.stash[SERVER]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have reports pass between processes as UTF-8, whatever was logged: one lone surrogate would end the run."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (server := config.stash.get(SERVER, None)) and server.note:
        terminalreporter.write_line(f"server: {server.note}")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """The server of this run."""
    workerinput: dict[str, Any] | None = getattr(request.config, "workerinput", None)
    return Postgres(*workerinput["postgres"]) if workerinput else start(request.config.stash[SERVER])


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Iterator[Databases]:
    """Makes databases, for tests that want one more: `with databases.fresh() as dsn`."""
    databases = Databases(postgres.dsn, postgres.template)
    yield databases
    databases.drop_released()


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """The DSN of a new database for this test alone, migrated."""
    with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
def empty_dsn(databases: Databases) -> Iterator[str]:
    """The DSN of a new database for this test alone, without our schema."""
    with databases.fresh("template0") as dsn:
        yield dsn


# Which storage.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of modules marked `every_storage` on each, but for those that ask for PostgreSQL's own things.

    With `usually="postgres"` they are slow on others: those that take long, and are about processes, not storages.
    """
    marker = metafunc.definition.get_closest_marker("every_storage")
    own = {"dsn", "databases"} & set(metafunc.fixturenames) or "backend" in _parametrized(metafunc)
    if marker is not None and "backend" in metafunc.fixturenames and not own:
        rare = [pytest.mark.slow] if marker.kwargs.get("usually") == "postgres" else []
        metafunc.parametrize("backend", ["postgres", pytest.param("sqlite", marks=rare)])


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    return {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}


@pytest.fixture
def backend() -> str:
    """The database under the storage: PostgreSQL, unless the test's module is marked `every_storage`."""
    return "postgres"


@pytest.fixture
def address(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What the test's storage is made from: the DSN of a new database, or the URL of a new file."""
    return request.getfixturevalue("dsn") if backend == "postgres" else f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def storage(address: str) -> Iterator[dbjobq.BaseStorage]:
    """A storage on a new database."""
    with storage_at(address) as storage:
        yield storage


@pytest.fixture
def queue(storage: dbjobq.BaseStorage) -> dbjobq.JobQueue:
    """A queue on a new database."""
    return dbjobq.JobQueue(storage)


@pytest.fixture
def backstage(address: str) -> Iterator[Backstage]:
    """What a test does to its database behind the queue's back."""
    with backstage_of(address) as backstage:
        yield backstage


@pytest.fixture
def cheap_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look is taken for dear because the machine is slow: after one, a job may be found later than at once."""
    monkeypatch.setattr(claim_start, "DEAR", float("inf"))
