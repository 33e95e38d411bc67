"""A PgBouncer in transaction mode, the real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["PGBOUNCER", "PgBouncer"]

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
logfile = {home}/log
pidfile = {home}/pid
pool_mode = transaction
default_pool_size = 3
server_login_retry = 1
max_client_conn = 500
{more}
"""


class PgBouncer:
    """One PgBouncer, started at once.

    Args:
        direct: The DSN of the server, which it reaches over TCP.
        home: An empty directory.
        more: More lines for its settings.
    """

    def __init__(self, direct: str, home: Path, more: str = "") -> None:
        known = conninfo_to_dict(direct)
        server = " ".join(f"{k}='{v}'" for k in ("host", "port", "user", "password") if (v := known.get(k)))
        self.port = free_port()
        home.chmod(0o777)
        (home / "ini").write_text(SETTINGS.format(server=server, port=self.port, home=home, more=more))
        self._command = [str(PGBOUNCER), *(["-u", "nobody"] if os.geteuid() == 0 else []), str(home / "ini")]
        self.direct = direct
        self.dsn = make_conninfo(direct, host="127.0.0.1", port=str(self.port))
        self.start()

    def start(self) -> None:
        """Start it, again if need be; returns when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and its connections with it."""
        self._process.terminate()
        self._process.wait(60)
