"""A worker in a process of its own: `python -m tests.support.runner '{"address": …, …}'`, until its input ends.

With `"clock_off"`, its clocks are wrong by so many seconds.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from tests.support.clock import shift


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    if off := settings.pop("clock_off", 0):
        shift(off)
    from dbjobq import JobQueue, Worker
    from tests.support.storages import storage_at

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(job_id)s", defaults={"job_id": "-"}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    storage = storage_at(settings.pop("address"))
    settings.setdefault("imports", ["tests.support.handlers"])
    worker = Worker(JobQueue(storage), **settings)
    worker.start()
    sys.stdin.read()
    worker.stop()
    storage.close()


if __name__ == "__main__":
    main()
