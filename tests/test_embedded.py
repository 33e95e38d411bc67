"""EmbeddedPostgres with real servers: it starts, it stops however its owner ends, and data can be kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dbjobq import binaries
from dbjobq.binaries import find_bindir
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.errors import ConfigError
from tests.support.process import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone runs the server as somebody else")

OWNER = """
import sys
from dbjobq.embedded import EmbeddedPostgres

server = EmbeddedPostgres(*sys.argv[1:])
print(server.dsn(), flush=True)
sys.stdin.read()
"""

FORKER = """
import os, time
from dbjobq.embedded import EmbeddedPostgres

server = EmbeddedPostgres()
ours, theirs = os.pipe()
child = os.fork()
if child == 0:
    os.close(theirs)
    os.read(ours, 1)  # holds the guard's pipe open until its parent lets go of this one
    raise SystemExit
print(server.dsn(), flush=True)
server.stop()
os.close(theirs)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose parents every account may enter, unlike those of pytest's tmp_path."""
    path = Path(tempfile.mkdtemp(prefix="dbjobq-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@contextlib.contextmanager
def process(script: str, *args: str | Path) -> Generator[subprocess.Popen[str]]:
    """A Python process that runs the script; killed at the end if it is still there."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def dsn_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def socket_dir(dsn: str) -> Path:
    return Path(str(conninfo_to_dict(dsn)["host"]))


def query(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_throwaway_server_leaves_nothing_behind() -> None:
    with EmbeddedPostgres(settings={"max_connections": "17"}) as server:
        assert query(server.dsn(), "SHOW fsync") == [("off",)]
        assert query(server.dsn(), "SHOW max_connections") == [("17",)]
        assert query(server.dsn(), "SHOW listen_addresses") == [("",)]
        base = socket_dir(server.dsn())
        assert base.stat().st_mode & 0o777 == 0o700
    assert not base.exists()
    server.stop()


def test_tcp_wants_the_password() -> None:
    with EmbeddedPostgres(tcp=True) as server:
        dsn = server.dsn(tcp=True)
        assert query(dsn, "SELECT 1") == [(1,)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="a guess")


def test_without_tcp_there_is_no_such_dsn() -> None:
    with EmbeddedPostgres() as server, pytest.raises(ConfigError, match="start it with tcp=True"):
        server.dsn(tcp=True)


def test_the_server_goes_when_its_owner_is_killed() -> None:
    with process(OWNER) as owner:
        dsn = dsn_of(owner)
        assert query(dsn, "SELECT 1") == [(1,)]
        pid = int((socket_dir(dsn) / "data" / "postmaster.pid").read_text().split()[0])
        owner.kill()
        assert eventually(lambda: not socket_dir(dsn).exists())
        assert eventually(lambda: not runs(pid))


def test_the_server_goes_when_its_owner_ends_without_a_word() -> None:
    with process(OWNER) as owner:
        dsn = dsn_of(owner)
        _, stderr = owner.communicate("")
        assert (owner.returncode, stderr) == (0, "")
        assert not socket_dir(dsn).exists()


def test_a_forked_child_neither_stops_the_server_nor_keeps_it_alive() -> None:
    with process(FORKER) as owner:
        dsn = dsn_of(owner)
        _, stderr = owner.communicate(timeout=20)
        assert (owner.returncode, stderr) == (0, "")
        assert not socket_dir(dsn).exists()


def test_durable_data_are_there_again(place: Path) -> None:
    with EmbeddedPostgres(place / "home") as server:
        query(server.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    with EmbeddedPostgres(place / "home", tcp=True) as server:
        assert query(server.dsn(tcp=True), "SELECT answer FROM kept") == [(42,)]
        assert query(server.dsn(), "SHOW fsync") == [("on",)]


def test_a_second_process_joins_a_durable_server_and_leaves_it_running(place: Path) -> None:
    with EmbeddedPostgres(place / "home") as server, process(OWNER, place / "home") as guest:
        assert dsn_of(guest) == server.dsn()
        _, stderr = guest.communicate("")
        assert (guest.returncode, stderr) == (0, "")
        assert query(server.dsn(), "SELECT 1") == [(1,)]


def test_of_two_simultaneous_starters_one_starts_and_one_joins(place: Path) -> None:
    with process(OWNER, place / "home") as one, process(OWNER, place / "home") as other:
        dsn = dsn_of(one)
        assert dsn
        assert dsn_of(other) == dsn
        assert query(dsn, "SELECT 1") == [(1,)]
        one.kill()
        other.kill()
        assert eventually(lambda: not socket_dir(dsn).exists())


def test_a_pid_file_left_by_a_crash_is_no_obstacle(place: Path) -> None:
    with EmbeddedPostgres(place / "home") as server:
        pidfile = place / "home" / "data" / "postmaster.pid"
        left_behind = pidfile.read_text()
        query(server.dsn(), "CREATE TABLE kept ()")
    pidfile.write_text(left_behind)
    pidfile.chmod(0o600)
    shutil.chown(pidfile, pidfile.parent.stat().st_uid, pidfile.parent.stat().st_gid)
    with EmbeddedPostgres(place / "home") as server:
        assert query(server.dsn(), "SELECT count(*) FROM kept") == [(0,)]


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"pg_ctl failed .*\n[^$]*shared_buffers"):
        EmbeddedPostgres(settings={"shared_buffers": "lots"}, tempdir=place)
    assert list(place.iterdir()) == []


@as_root
def test_root_is_told_of_a_directory_the_server_cannot_reach(place: Path) -> None:
    place.chmod(0o700)
    with pytest.raises(ConfigError, match="has no access to"):
        EmbeddedPostgres(place / "home")


@as_root
def test_root_gets_by_with_binaries_the_server_cannot_reach(place: Path) -> None:
    install = find_bindir().parent
    hidden = place / "hidden" / install.parent.name
    shutil.copytree(install, hidden / install.name, symlinks=True)
    if (libraries := install.parent.parent / f"{install.parent.name}.libs").exists():
        shutil.copytree(libraries, hidden.parent / libraries.name, symlinks=True)
    hidden.parent.chmod(0o700)
    with EmbeddedPostgres(bindir=hidden / install.name / "bin") as server:
        assert query(server.dsn(), "SELECT 1") == [(1,)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_program_it_prints_its_dsn_and_serves_until_a_signal(number: int) -> None:
    command = [sys.executable, "-m", "dbjobq.embedded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        dsn = program.stdout.readline().strip()
        assert query(dsn, "SELECT 1") == [(1,)]
        program.send_signal(number)
        assert program.communicate(timeout=30) == ("", "")
        assert program.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_as_a_program_it_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dbjobq.embedded"]
    environment = {**os.environ, "DBJOBQ_PG_BINDIR": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: no PostgreSQL binaries: DBJOBQ_PG_BINDIR={tmp_path} holds no initdb\n"


def test_no_binaries_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBJOBQ_PG_BINDIR", raising=False)
    monkeypatch.setattr(binaries, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(binaries, "SYSTEM_BINARIES", ())
    with pytest.raises(ConfigError) as caught:
        EmbeddedPostgres()
    message = str(caught.value)
    assert "pip install 'dbjobq[embedded]'" in message
    assert "DBJOBQ_PG_BINDIR" in message
    assert "\n" not in message


def test_a_version_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBJOBQ_PG_BINDIR", raising=False)
    with pytest.raises(ConfigError, match="no PostgreSQL 9 binaries"):
        find_bindir(9)


def test_the_directory_in_the_environment_must_hold_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBJOBQ_PG_BINDIR", str(tmp_path))
    with pytest.raises(ConfigError, match="holds no initdb"):
        find_bindir()
