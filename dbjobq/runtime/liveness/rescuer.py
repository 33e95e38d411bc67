"""Takes jobs back from workers that are gone, in a thread that is there only while there are such jobs.

The heartbeat looks whether there are any (that is cheap); to take them back may take long, where there are many, or
where the commit that wakes others waits behind one that waits for a standby. No heartbeat may wait with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dbjobq.errors import DBJobQError
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_DEAD, JOB_RESCUED, SERVICE_BROKEN, SERVICE_FAILING
from dbjobq.hooks import tell_rescued
from dbjobq.storage.worker_port import Pulse

__all__ = ["Rescuer"]


class Rescuer:
    """Used by the heartbeat's thread, which begins it, and by whoever stops that.

    Args:
        connect: Makes a connection for the time that a rescue takes.
    """

    def __init__(self, connect: Callable[[], Pulse]) -> None:
        self._connect = connect
        self._thread: threading.Thread | None = None
        self._pulse: Pulse | None = None
        self._stopping = self._troubled = False

    def begin(self) -> None:
        """Take back all there is, unless that is under way. Returns at once."""
        if self._stopping or (self._thread is not None and self._thread.is_alive()):
            return
        self._pulse = self._connect()
        self._thread = threading.Thread(target=self._run, args=(self._pulse,), name="dbjobq-rescue", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the rest to others. What is half done is undone."""
        self._stopping = True
        if self._pulse is not None and self._thread is not None:
            self._pulse.cut()
            self._thread.join(0.5)

    def _run(self, pulse: Pulse) -> None:
        try:
            while not self._stopping and (rescued := pulse.rescue()):
                tell_rescued(rescued)
                for job in rescued:
                    emit(JOB_DEAD if job.dead else JOB_RESCUED, job)
            self._troubled = False
        except DBJobQError as error:
            if not (self._troubled or self._stopping):
                emit(SERVICE_FAILING, service="rescue", error=str(error))
            self._troubled = True
        except Exception as error:
            emit(SERVICE_BROKEN, exception=error, service="rescue")
        finally:
            pulse.close()
