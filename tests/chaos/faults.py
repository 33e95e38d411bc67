"""The faults themselves: how each is made, and how it is mended. What it may do to a job stands in `schedule`."""

from __future__ import annotations

import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final

import psycopg

from tests.chaos.cluster import can_replicate
from tests.chaos.world import World
from tests.support.faultproxy import drop_packets
from tests.support.pgbouncer import PGBOUNCER

__all__ = ["FAULTS", "Fault", "missing"]

TERMINATE: Final = b"""
    select pg_terminate_backend(pid) from pg_stat_activity
     where backend_type = 'client backend' and application_name <> 'chaos'
"""


class Fault(ABC):
    """One fault, made once and mended once.

    Args:
        world: Where.
        where: Which worker or link.
    """

    def __init__(self, world: World, where: int) -> None:
        self.world, self.where = world, where
        self.pids: frozenset[int] | None = None
        """The processes that feel it; None for all."""

    @abstractmethod
    def inject(self) -> None:
        """Make it; returns when it is there."""

    def heal(self) -> None:  # noqa: B027 - some are over when they are made
        """Mend it; returns when it is over."""


class _OfWorker(Fault):
    def __init__(self, world: World, where: int) -> None:
        super().__init__(world, where)
        self.slot = world.workers[where]
        self.pids = frozenset([self.slot.life.pid])


class Kill(_OfWorker):
    """SIGKILL."""

    def inject(self) -> None:
        self.slot.life.wanted_dead = self.slot.down = True
        self.slot.life.process.kill()
        self.slot.life.process.wait()

    def heal(self) -> None:
        self.slot.start()


class Pause(_OfWorker):
    """SIGSTOP, then SIGCONT: a frozen virtual machine, a swap storm."""

    def inject(self) -> None:
        life = self.slot.life
        with suppress(ChildProcessError):  # it had ended
            life.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, life.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def heal(self) -> None:
        for life in self.slot.lives:
            life.process.send_signal(signal.SIGCONT)


class Stop(_OfWorker):
    """SIGTERM under load, and a new worker: a deployment."""

    def inject(self) -> None:
        self.slot.life.wanted_dead = self.slot.down = True
        self.slot.life.process.terminate()

    def heal(self) -> None:
        code = self.slot.life.process.wait(20)
        assert code in {0, -signal.SIGTERM}, f"a worker that was told to stop left with {code}"
        self.slot.start()


class Hole(_OfWorker):
    """All that a worker sends and is sent is held back, while the connections stay: a pooler or load balancer hangs."""

    def inject(self) -> None:
        for proxy in self.slot.link.proxies:
            proxy.blackhole()

    def heal(self) -> None:
        self.slot.link.heal()


class Drop(_OfWorker):
    """A worker's packets are dropped: a cable is cut, a machine is gone. Needs root and iptables."""

    def inject(self) -> None:
        self._dropped = ExitStack()
        for port in self.slot.link.ports:
            self._dropped.enter_context(drop_packets(port))

    def heal(self) -> None:
        self._dropped.close()


class LostReplies(Fault):
    """The server does what it is asked, and the connection breaks before it is heard."""

    def __init__(self, world: World, where: int) -> None:
        super().__init__(world, where)
        self.pids = world.pids(where)

    def inject(self) -> None:
        for proxy in self.world.links[self.where].proxies:
            proxy.lose_replies()

    def heal(self) -> None:
        for proxy in self.world.links[self.where].proxies:
            proxy.spare()


class Terminate(Fault):
    """`pg_terminate_backend` of everybody, twice."""

    def inject(self) -> None:
        self.world.rows(TERMINATE)

    def heal(self) -> None:
        self.world.rows(TERMINATE)


class Restart(Fault):
    """The server's processes end at once; it recovers, and is back."""

    def inject(self) -> None:
        self.world.cluster.restart()


class Failover(Fault):
    """The server is gone for good; its standby takes over, and gets a standby of its own."""

    def inject(self) -> None:
        self.world.cluster.fail_over()
        self.world.front.target = ("127.0.0.1", self.world.cluster.primary.port)
        self.world.front.reset()

    def heal(self) -> None:
        self.world.cluster.rejoin()


class Exhaust(Fault):
    """Everybody's connection is ended, and all the places are taken when they come back."""

    def inject(self) -> None:
        self._held: list[psycopg.Connection[Any]] = [psycopg.connect(self.world.dsn(), autocommit=True)]
        self._held[0].execute(TERMINATE)
        by = time.monotonic() + 1.0
        while time.monotonic() < by:
            try:
                self._held.append(psycopg.connect(self.world.dsn()))
            except psycopg.OperationalError:
                self._held[0].execute(TERMINATE)  # of those that were quicker
                time.sleep(0.05)

    def heal(self) -> None:
        for connection in self._held:
            connection.close()


class RestartPooler(Fault):
    """PgBouncer ends, its clients' connections with it, and is started again."""

    def __init__(self, world: World, where: int) -> None:
        super().__init__(world, where)
        self.pids = frozenset([world.workers[0].life.pid])

    def inject(self) -> None:
        assert self.world.bouncer is not None
        self.world.bouncer.stop()

    def heal(self) -> None:
        assert self.world.bouncer is not None
        self.world.bouncer.start()


FAULTS: Final[Mapping[str, type[Fault]]] = {
    "worker killed": Kill,
    "worker paused past its lease": Pause,
    "worker told to stop": Stop,
    "black hole, held by a proxy": Hole,
    "black hole, packets dropped": Drop,
    "reply lost after commit": LostReplies,
    "all backends terminated": Terminate,
    "server restarted (immediate)": Restart,
    "failover to the standby": Failover,
    "connections used up": Exhaust,
    "PgBouncer restarted": RestartPooler,
}
"""By their names in `schedule.KINDS`."""


def missing(fault: str) -> str | None:
    """Return what this machine lacks for a fault; None if nothing."""
    if FAULTS[fault] is Failover and not can_replicate():
        return "these PostgreSQL binaries have no pg_basebackup"
    if FAULTS[fault] is RestartPooler and PGBOUNCER is None:
        return "PgBouncer is not installed"
    if FAULTS[fault] is Drop and (os.geteuid() != 0 or shutil.which("iptables") is None):
        return "dropping packets needs root and iptables"
    return None
