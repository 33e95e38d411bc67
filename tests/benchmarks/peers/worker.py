"""A worker process of one system, until it is killed: `python -m tests.benchmarks.peers.worker NAME DSN DATABASE`."""

from __future__ import annotations

import asyncio
import logging
import sys

from tests.benchmarks.peers import SYSTEMS
from tests.benchmarks.peers.system import Queue


def main() -> None:
    """Work, on uvloop where it is there: PgQueuer brings it, dbjobq uses it then, and so shall all."""
    name, dsn, database = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    (queue,) = (it for it in SYSTEMS if issubclass(it, Queue) and it.name == name)
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(queue(dsn, database).work())


if __name__ == "__main__":
    main()
