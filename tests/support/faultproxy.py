"""A TCP proxy that misbehaves on request: delay, black hole, reset, refuse.

    with FaultProxy(("127.0.0.1", 5432)) as proxy:  # target: (host, port) or "/dir/.s.PGSQL.5432"
        connect(host="127.0.0.1", port=proxy.port)
        proxy.blackhole()  # bytes vanish, connections stay open: a dead host or a cut cable
        proxy.heal()  # what was held back flows again, in order
        proxy.reset()  # RST on every open connection: a crashed server, a NAT that forgot
        proxy.refuse()  # reset, and no new connections either: the server is down
        proxy.lose_replies()  # requests pass; the answer, and the connection with it, is lost: committed, and not told
        proxy.break_off(70, 0)  # the answers end after 70 bytes, the next connection's at once; then all is well again
        proxy.strand()  # the open connections lead nowhere any more, new ones do: a load balancer has forgotten them
        proxy.delay(0.2)  # each chunk is that many seconds late, in both directions

A black hole made here still acknowledges at the TCP level (the proxy's kernel does): keepalives and
tcp_user_timeout do not see it. For a silent peer, drop packets with iptables: `drop_packets()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import psycopg

    Target = tuple[str, int] | str

ANSWER_TIMEOUT = 5
"""Seconds the proxy's own thread may take to do what it was told."""


class FaultProxy:
    """A proxy on a free port of 127.0.0.1, in a thread of its own.

    Args:
        target: where connections lead: host and port, or the path of a Unix socket.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.accepted = 0
        """Connections let through so far."""
        self.refused = 0
        """Connections that were not."""
        self._latency = 0.0
        self._accepting = True
        self._open: set[asyncio.StreamWriter] = set()
        self._doomed: dict[asyncio.StreamWriter, int] = {}
        """Clients of whose answers one is lost, and how many come before that."""
        self._stranded: set[asyncio.StreamWriter] = set()
        """Whatever is for them is swallowed."""
        self._lengths: deque[int] = deque()
        """Bytes of answers until a connection ends, for one connection after the other."""
        self._flow = asyncio.Event()
        self._end = asyncio.Event()
        self._flow.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(ANSWER_TIMEOUT)

    def delay(self, seconds: float) -> None:
        """Hold each chunk back for that long."""
        self._latency = seconds

    def blackhole(self) -> None:
        """Swallow all bytes and leave the connections open."""
        self._do(self._flow.clear)

    def reset(self) -> None:
        """Reset every open connection; new ones are let through."""
        self._do(self._reset)

    def lose_replies(self, after: int = 0) -> None:
        """Reset each connection that is open now when the next answer comes, which is dropped; or one after that."""
        self._do(lambda: self._doomed.update(dict.fromkeys(self._open, after)))

    def break_off(self, *lengths: int) -> None:
        """End the connection on which so many bytes were answered from now on; for each length given, one."""
        self._do(lambda: self._lengths.extend(lengths))

    def spare(self) -> None:
        """Lose no more answers."""
        self._do(self._doomed.clear)
        self._do(self._lengths.clear)

    def strand(self) -> None:
        """Swallow all bytes of the connections that are open now, and leave them open; new ones are let through."""
        self._do(lambda: self._stranded.update(self._open))

    def refuse(self) -> None:
        """Reset every open connection and each new one."""
        self._accepting = False
        self.reset()

    def heal(self) -> None:
        """Let everything through again, and what was held back first."""
        self._accepting, self._latency = True, 0.0
        self.spare()
        self._do(self._flow.set)

    def close(self) -> None:
        """End the proxy and all its connections; may be called again."""
        if self._thread.is_alive():
            self._do(self._end.set)
            self._thread.join(ANSWER_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, function: Callable[[], object]) -> None:
        """Call a function in the proxy's thread and wait until it has returned."""
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(ANSWER_TIMEOUT)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener)
        self._ready.set()
        await self._end.wait()
        server.close()
        self._reset()
        self._flow.set()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(tasks, timeout=2)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._accepting:
            self.refused += 1
            abort(writer)
            await closed(writer)
            return
        self.accepted += 1
        self._open.add(writer)
        try:
            await self._flow.wait()
            up_reader, up_writer = await self._connect()
        except OSError:
            self._open.discard(writer)
            abort(writer)
            await closed(writer)
            return
        self._open.add(up_writer)
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer, answers=True))
        self._open -= {writer, up_writer}
        for ended in (writer, up_writer):
            self._doomed.pop(ended, None)
        self._stranded -= {writer, up_writer}
        await closed(writer)
        await closed(up_writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if writer in self._stranded:
                    continue
                if answers and writer in self._doomed:
                    if not self._doomed[writer]:
                        abort(writer)
                        return
                    self._doomed[writer] -= 1
                if self._latency:
                    await asyncio.sleep(self._latency)
                await self._flow.wait()
                if answers and (last := self._last_bytes(len(data))) is not None:
                    writer.write(data[:last])
                    break
                writer.write(data)
                await writer.drain()
            await self._flow.wait()
        writer.close()

    def _last_bytes(self, size: int) -> int | None:
        """Count an answer; return how much of it passes if its connection ends there (`break_off`)."""
        if not self._lengths:
            return None
        if self._lengths[0] < size:
            return self._lengths.popleft()
        self._lengths[0] -= size
        return None

    def _reset(self) -> None:
        for writer in self._open:
            abort(writer)
        self._open.clear()


def abort(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Wait until the connection's socket is closed: the end of the loop must not come first."""
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def proxied(dsn: str) -> tuple[FaultProxy, str]:
    """A proxy in front of the server of a DSN, and the DSN that leads through it.

    Without TLS and GSS, whose handshakes would only make the faults less predictable.
    """
    parts = conninfo_to_dict(dsn)
    host, port = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
    proxy = FaultProxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
    through = make_conninfo(dsn, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable")
    return proxy, through


@contextlib.contextmanager
def drop_packets(port: int) -> Generator[None]:
    """Make the server at this port of the loopback silent at the TCP level too (root and iptables only)."""
    sides = ("--dport", "--sport")
    rules = [["INPUT", "-i", "lo", "-p", "tcp", side, str(port), "-j", "DROP"] for side in sides]
    with contextlib.ExitStack() as undo:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
            undo.callback(subprocess.run, ["iptables", "-w", "-D", *rule], check=True)
        yield


def cut(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Make the call that waits on this connection fail now; any thread or event loop may do it.

    Cancelling a call that waits in a black hole takes ten seconds.
    """
    with socket.socket(fileno=os.dup(conn.pgconn.socket)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
