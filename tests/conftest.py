"""One PostgreSQL server per test run, one fresh database per test.

Nothing starts until a test wants a database. With pytest-xdist the controller starts the server and tells its
workers the address. Which server that is: `tests/support/server.py`; the end of the report names it.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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


class Postgres(NamedTuple):
    """The server of this run, as the tests are told of it."""

    dsn: str
    """Leads to a database that is not ours; its role may create databases."""
    template: str
    """The migrated database that others are copied from; nobody may be connected to it."""


ROOT: Final = Path(__file__).parents[1]
MANY: Final = 4
"""So many values of a test, or more, are not tried on every pair of a storage and a kind of queue."""
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
    # Some hundred processes are started, and each would compile all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_unconfigure(config: pytest.Config) -> None:
    if server := config.stash.get(SERVER, None):
        server.close()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(
    node: Any,
) -> None:  # pytest-xdist, in the controller, for each worker; it has no types
    node.workerinput["postgres"] = tuple(start(node.config.stash[SERVER]))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Share the work of compiling tests among pytest-xdist's workers: each begins elsewhere.

    They collect the same modules in the same order, so each would compile all of them.
    """
    if not hasattr(session.config, "workerinput"):
        return
    folders = [Path(arg) for arg in session.config.args if Path(arg).is_dir()]
    names = [module_name(file) for folder in folders for file in sorted(folder.rglob("test_*.py"))]
    number, workers = (int(os.environ[f"PYTEST_XDIST_WORKER{it}"].removeprefix("gw")) for it in ("", "_COUNT"))
    begin = len(names) * number // workers
    for name in names[begin:] + names[:begin]:
        with suppress(Exception):  # the collection will say so
            importlib.import_module(name)


def module_name(file: Path) -> str:
    """The name under which pytest imports a test's module."""
    return ".".join(file.resolve().relative_to(ROOT).with_suffix("").parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have reports pass between processes as UTF-8, whatever was logged: one lone surrogate would end the run.

    What was logged goes along only where somebody will read it: one test logs 50 MB, to see that it may.
    """
    report = yield
    if report.passed and not set("PA") & set(item.config.option.reportchars):
        report.sections = []
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


# Which storage, and which kind of queue.


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests on each storage and by each kind of queue, where they are about that.

    Storages: those of modules marked `every_storage`, but for tests that ask for PostgreSQL's own things. With
    `usually="postgres"` they are slow on others: those that take long, and are about processes, not storages. Kinds of
    queue: those that take the `queue` of tests/queue. A test runs on all four pairs; one with many values of its own on
    two of them: a call goes one way from either queue, and one way into either storage, whatever its arguments.
    """
    own, values = parametrized(metafunc)
    marker = metafunc.definition.get_closest_marker("every_storage")
    rare = [pytest.mark.slow] if marker and marker.kwargs.get("usually") == "postgres" else []
    storages = ["postgres", pytest.param("sqlite", marks=rare)]
    everywhere = marker and "backend" in metafunc.fixturenames and not {"dsn", "databases"} & {*metafunc.fixturenames}
    both = "kind_of_queue" in metafunc.fixturenames
    if everywhere and both and "backend" not in own and values >= MANY:
        pairs = [("sync", "postgres"), pytest.param("async", "sqlite", marks=rare)]
        metafunc.parametrize(("kind_of_queue", "backend"), pairs)
        return
    if both:
        metafunc.parametrize("kind_of_queue", ["sync", "async"])
    if everywhere and "backend" not in own:
        metafunc.parametrize("backend", storages)


def parametrized(metafunc: pytest.Metafunc) -> tuple[set[str], int]:
    """The names that the test's own marks give values to, and how many combinations of these there are."""
    marks = [mark.args for mark in metafunc.definition.iter_markers("parametrize")]
    names = {name for of, *_ in marks for name in (of.replace(",", " ").split() if isinstance(of, str) else of)}
    return names, math.prod(len(values) for _, values, *_ in marks)


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
    """No claim is taken for expensive because the machine is slow: a job may then be found later than at once."""
    monkeypatch.setattr(claim_start, "EXPENSIVE_CLAIM", float("inf"))
