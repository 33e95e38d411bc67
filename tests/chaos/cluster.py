"""A PostgreSQL server of one's own, with a standby if wanted, to be crashed and failed over."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

from dbjobq.embedded.binaries import find_bindir
from dbjobq.embedded.server import _Runner
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["Cluster", "can_replicate", "retried"]

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "160",
    "superuser_reserved_connections": "0",
    "fsync": "off",  # the machine does not crash here, and what a process has written survives it
    "synchronous_commit": "on",
    "shared_buffers": "32MB",
    "wal_keep_size": "256MB",
    "wal_receiver_timeout": "5s",
    "wal_retrieve_retry_interval": "200ms",  # by default commits wait 5 s for a standby after a restart
    "wal_sender_timeout": "5s",
    "client_connection_check_interval": "1s",
    "tcp_user_timeout": "4000",
}
MEMORY: Final = Path("/dev/shm")


def can_replicate() -> bool:
    """Whether the binaries bring what makes a standby."""
    return (find_bindir() / "pg_basebackup").exists()


class Node:
    """One server of the cluster, and its data."""

    def __init__(self, account: _Runner, bindir: Path, home: Path) -> None:
        self._account, self._bindir, self._home = account, bindir, home
        home.mkdir()
        account.give(home)
        self.data = home / "data"
        self.port = free_port()
        self._guard = account.guard(bindir / "pg_ctl", self.data, home)

    def init(self, password: Path) -> None:
        """Make an empty cluster."""
        access = ["-A", "scram-sha-256", f"--pwfile={password}", "-U", "postgres"]
        self._run("initdb", "-D", self.data, *access, "--no-locale", "-E", "UTF8", "--no-sync")

    def copy(self, dsn: str) -> None:
        """Become a copy of the server there, which follows it."""
        shutil.rmtree(self.data, ignore_errors=True)
        self._run("pg_basebackup", "-D", self.data, "-d", dsn, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def start(self) -> None:
        """Start it; returns when it answers."""
        settings = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self._home)}
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._control("-l", self._home / "log", "-o", options, "start")

    def crash(self) -> None:
        """End it at once, unprepared; what it had not written is lost."""
        self._control("-m", "immediate", "stop")

    def promote(self) -> None:
        """Make the standby the primary."""
        self._control("promote")

    def close(self) -> None:
        """End it and remove its data."""
        self._guard.communicate(b"\n")

    def _control(self, *args: str | Path) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", *args)

    def _run(self, program: str, *args: str | Path) -> None:
        code, output = self._account.run([str(self._bindir / program), *map(str, args)])
        assert code == 0, f"{program} {args[-1]}: {output}"


class Cluster:
    """A primary, and a standby that confirms each commit before it is acknowledged.

    Args:
        standby: Whether there is one.
    """

    def __init__(self, *, standby: bool) -> None:
        account = _Runner.choose()
        home = tempfile.mkdtemp(prefix="dbjobq-chaos-", dir=MEMORY if MEMORY.is_dir() else None)
        self._home = Path(home)
        account.give(self._home)
        bindir = account.usable(find_bindir(), self._home)
        self._password = secrets.token_hex(16)
        password = self._home / "password"
        password.write_text(self._password)
        account.give(password)
        self.nodes = [Node(account, bindir, self._home / name) for name in ("a", "b")[: 1 + standby]]
        self.primary = self.nodes[0]
        self.primary.init(password)
        self.primary.start()
        if standby:
            self._follow(self.nodes[1])

    @property
    def ports(self) -> list[int]:
        """Where the servers listen on 127.0.0.1."""
        return [node.port for node in self.nodes]

    def dsn(self, ports: list[int] | None = None, **more: Any) -> str:
        """Return a DSN that leads to the primary, whichever it is.

        Args:
            ports: Where to go instead, in the order of `ports`: those of proxies.
            more: What else to put into it.
        """
        settings: dict[str, Any] = {"connect_timeout": 3, "target_session_attrs": "read-write", **more}
        return make_conninfo(
            host=",".join("127.0.0.1" for _ in self.nodes),
            port=",".join(map(str, ports or self.ports)),
            user="postgres",
            password=self._password,
            dbname="postgres",
            sslmode="disable",
            gssencmode="disable",
            **settings,
        )

    def only(self, port: int, **more: Any) -> str:
        """Return a DSN that leads to this port alone."""
        return make_conninfo(self.dsn(), host="127.0.0.1", port=port, target_session_attrs="any", **more)

    def restart(self) -> None:
        """Crash the primary, and start it again."""
        self.primary.crash()
        self.primary.start()

    def fail_over(self) -> None:
        """Crash the primary; the standby takes over."""
        dead, new = self.primary, self._standby()
        dead.crash()
        new.promote()
        self.primary = new
        self._alter("alter system reset synchronous_standby_names")  # nobody is left to confirm

    def rejoin(self) -> None:
        """Make the old primary a standby of the new one; nothing is acknowledged unconfirmed from then on."""
        self._follow(self._standby())

    def _standby(self) -> Node:
        return next(node for node in self.nodes if node is not self.primary)

    def _follow(self, node: Node) -> None:
        node.copy(self.only(self.primary.port))
        node.start()
        self._alter("alter system set synchronous_standby_names = '*'")
        until(self._confirmed, 30, "a standby that confirms")

    def _connected(self) -> psycopg.Connection[Any]:
        """Return a connection to the primary, however long a busy machine takes for it after a failover."""
        return psycopg.connect(self.only(self.primary.port, connect_timeout=30), autocommit=True)

    def _confirmed(self) -> bool:
        with self._connected() as connection:
            row = connection.execute("select 1 from pg_stat_replication where sync_state = 'sync'").fetchone()
        return row is not None

    def _alter(self, statement: str) -> None:
        with self._connected() as connection:
            connection.execute(statement.encode())
            connection.execute("select pg_reload_conf()")

    def close(self) -> None:
        """End all servers and remove their data."""
        for node in self.nodes:
            node.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def retried(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what a call to the database returns, made again until it succeeds."""
    by = time.monotonic() + seconds
    while True:
        try:
            return what()
        except psycopg.OperationalError:
            if time.monotonic() > by:
                raise
            time.sleep(0.05)
