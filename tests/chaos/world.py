"""What the faults happen to: servers, PgBouncer, workers and producers in processes of their own, behind proxies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final, Self

import psycopg

from dbjobq import schema
from tests.chaos.cluster import Cluster, retried
from tests.chaos.ledger import FOLDER
from tests.support.faultproxy import FaultProxy
from tests.support.pgbouncer import PgBouncer

__all__ = ["Life", "Link", "Producer", "WorkerSlot", "World"]

ROOT: Final = Path(__file__).parents[2]
TABLES: Final = b"""
    create schema chaos;
    create table chaos.effect (job_id uuid not null, run text not null);
    create table chaos.note (tag text not null)
"""
BOUNDED: Final = {"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 3, "tcp_user_timeout": 4000}
"""A dead network is noticed sooner than by default, since the runs are short."""


class Link:
    """One process's way to the database: a proxy before each server."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.proxies = [FaultProxy(("127.0.0.1", port)) for port in ports]

    @property
    def ports(self) -> list[int]:
        """Where the proxies listen."""
        return [proxy.port for proxy in self.proxies]

    def heal(self) -> None:
        """Let everything through again."""
        for proxy in self.proxies:
            proxy.heal()

    def close(self) -> None:
        """End the proxies."""
        for proxy in self.proxies:
            proxy.close()


@dataclass(slots=True)
class Life:
    """One process of a worker, from its start on."""

    process: subprocess.Popen[bytes]
    log: Path
    wanted_dead: bool = False
    """A fault has ended it, or is about to; else it is an event that it ends."""

    @property
    def pid(self) -> int:
        return self.process.pid


class WorkerSlot:
    """A worker that is started again when it has ended, as a supervisor would.

    Args:
        environment: What leads it to the database.
        link: Its proxies.
        folder: For its logs.
        lease: Its lease, in seconds.
    """

    def __init__(self, environment: dict[str, str], link: Link, folder: Path, lease: float) -> None:
        self._environment, self.link, self._folder, self._lease = environment, link, folder, lease
        self.lives: list[Life] = []
        self.down = False
        """A fault keeps it from being started."""
        self.start()

    @property
    def life(self) -> Life:
        """The present, or the last."""
        return self.lives[-1]

    def start(self) -> None:
        """Start it: the command line's worker, as users do."""
        log = self._folder / f"worker-{len(self.lives)}-{self.link.ports[0]}.log"
        settings = [f"--lease={self._lease}", "--concurrency=8", "--shutdown-timeout=1.5", "--log-json"]
        polls = ["--poll-interval=0.2", "--max-poll-interval=1"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dbjobq", "worker", "tests.chaos.jobs", *settings, *polls],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        self.lives.append(Life(process, log))
        self.down = False

    def tend(self) -> None:
        """Start it again if it has ended and no fault keeps it down."""
        if not self.down and self.life.process.poll() is not None:
            self.start()

    def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        self.life.wanted_dead = True
        self.life.process.send_signal(signal.SIGCONT)
        self.life.process.terminate()
        return self.life.process.wait(20)

    def close(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self.life.process.kill()
        self.life.process.wait()


class Producer:
    """One of the processes that enqueue.

    Args:
        settings: What it is told.
        environment: What leads it to its ledger.
        link: Its proxies.
    """

    def __init__(self, settings: Sequence[str], environment: dict[str, str], link: Link) -> None:
        self.link = link
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.producer", *settings],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self.pid = self._process.pid

    def stop(self) -> int:
        """Let it end its calls; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(40)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class World:
    """Everything; ends with its `with` block.

    Args:
        seed: For the producers.
        lease: Of the workers, in seconds.
        pace: How busy the producers are; 1 is some hundred jobs a second.
        standby: Whether there is a server to fail over to.
        pooler: Whether one worker comes by way of PgBouncer.
    """

    def __init__(self, *, seed: int, lease: float, pace: float, standby: bool, pooler: bool) -> None:
        self.lease = lease
        self._end = ExitStack()
        with ExitStack() as undo:
            self.folder = Path(mkdtemp(prefix="dbjobq-chaos-"))
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.cluster = undo.enter_context(Cluster(standby=standby))
            schema.migrate(self.dsn())
            self.rows(TABLES)
            self.front = undo.enter_context(FaultProxy(("127.0.0.1", self.cluster.primary.port)))
            """Leads to the primary, for PgBouncer, which knows of one server only."""
            self.bouncer = self._start_bouncer(undo) if pooler else None
            self.workers = [self._start_worker(undo, pooled=pooler and n == 0) for n in range(4)]
            self.producers = [self._start_producer(undo, how, seed, pace) for how in ("sync", "async")]
            self._end = undo.pop_all()

    def dsn(self, ports: list[int] | None = None) -> str:
        """Return the way to the primary; without ports that of the harness itself, which faults spare."""
        name = {"application_name": "chaos"} if ports is None else BOUNDED
        return self.cluster.dsn(ports, **name)

    def rows(self, statement: bytes) -> list[tuple[Any, ...]]:
        """Execute a statement, again until there is a server, and return its rows."""

        def once() -> list[tuple[Any, ...]]:
            with psycopg.connect(self.dsn(), autocommit=True) as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else []

        rows: list[tuple[Any, ...]] = retried(once)
        return rows

    @property
    def links(self) -> list[Link]:
        """The workers', then the producers'."""
        return [*(slot.link for slot in self.workers), *(producer.link for producer in self.producers)]

    def pids(self, link: int) -> frozenset[int]:
        """Return who uses this link now."""
        workers = [slot.life.pid for slot in self.workers]
        return frozenset([[*workers, *(producer.pid for producer in self.producers)][link]])

    def tend(self) -> None:
        """Start workers again that have ended."""
        for slot in self.workers:
            slot.tend()

    def unfinished(self) -> int:
        """Return how many jobs have not ended."""
        places = b" + ".join(
            b"(select count(*) from dbjobq.%s)" % place for place in (b"ready", b"scheduled", b"lease")
        )
        return int(self.rows(b"select " + places)[0][0])

    def drain(self, seconds: float) -> bool:
        """Let the workers work off what is there; return whether they did in so many seconds."""
        by = time.monotonic() + seconds
        while self.unfinished():
            if time.monotonic() > by:
                return False
            self.tend()
            time.sleep(0.1)  # for the workers
        return True

    def _start_bouncer(self, undo: ExitStack) -> PgBouncer:
        home = self.folder / "pgbouncer"
        home.mkdir()
        self.folder.chmod(0o755)
        bouncer = PgBouncer(self.cluster.only(self.front.port), home)
        undo.callback(bouncer.stop)
        return bouncer

    def _link(self, undo: ExitStack, ports: list[int]) -> Link:
        link = Link(ports)
        undo.callback(link.close)
        return link

    def _start_worker(self, undo: ExitStack, *, pooled: bool) -> WorkerSlot:
        environment = {FOLDER: str(self.folder)}
        if pooled and self.bouncer is not None:
            link = self._link(undo, [self.bouncer.port, *self.cluster.ports])
            environment["DBJOBQ_DSN"] = self.cluster.only(link.ports[0], **BOUNDED)
            environment["DBJOBQ_LISTEN_DSN"] = self.dsn(link.ports[1:])
        else:
            link = self._link(undo, self.cluster.ports)
            environment["DBJOBQ_DSN"] = self.dsn(link.ports)
        slot = WorkerSlot(environment, link, self.folder, self.lease)
        undo.callback(slot.close)
        return slot

    def _start_producer(self, undo: ExitStack, how: str, seed: int, pace: float) -> Producer:
        link = self._link(undo, self.cluster.ports)
        settings = [how, self.dsn(link.ports), str(seed), str(pace)]
        producer = Producer(settings, {FOLDER: str(self.folder)}, link)
        undo.callback(producer.close)
        return producer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
