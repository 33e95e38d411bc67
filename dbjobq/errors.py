"""Every error that dbjobq raises.

    DBJobQError
    ├── ConfigError           settings that cannot work: a wrong DSN, a bad schema name, no server binaries
    ├── SchemaError           the tables are missing, older or newer than this library
    ├── NotSupported          this storage cannot do that
    ├── StorageUnavailable    the database did not answer, or could not do it; the call may be repeated
    ├── JobNotFound           no job has this id
    ├── LeaseLost             a result was refused: the job is no longer held
    ├── UnknownJobType        no function could be found for a job's type
    └── ProcessDied           the process that a job had to itself ended under it

Arguments of the wrong type or out of range are Python's own `TypeError` and `ValueError`. A message says what
failed, with which value, and what to do; the data stand beside it as attributes.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DBJobQError",
    "JobNotFound",
    "LeaseLost",
    "NotSupported",
    "ProcessDied",
    "SchemaError",
    "StorageUnavailable",
    "UnknownJobType",
]


class DBJobQError(Exception):
    """The base class of every error that dbjobq raises."""


class ConfigError(DBJobQError):
    """A setting cannot work: a DSN that is refused, an impossible schema name, missing binaries."""


class SchemaError(DBJobQError):
    """The tables are missing, or older or newer than this library. The message says which, and what to do."""


class NotSupported(DBJobQError):  # noqa: N818 - its public name
    """The storage in use cannot do what was asked of it."""


class StorageUnavailable(DBJobQError):  # noqa: N818 - a state, as LeaseLost is
    """The database did not answer, could not do it, or the connection was lost. The call may be repeated."""

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered
        """Whether the server itself answered so: it can be reached, and something else is in the way."""


class JobNotFound(DBJobQError):  # noqa: N818 - its public name
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job has the id {job_id!r}; it was never enqueued here, or its history was pruned")
        self.job_id = job_id


class LeaseLost(DBJobQError):  # noqa: N818 - its public name
    """A result was refused and nothing was written: the caller does not hold the job."""

    def __init__(
        self,
        job_id: str,
        why: str = "its lease ran out, or it was cancelled. If handlers take this long, ask for a longer lease.",
    ) -> None:
        super().__init__(f"job {job_id} is not held here, so nothing was written: {why}")
        self.job_id = job_id


class UnknownJobType(DBJobQError):  # noqa: N818 - reads as what it is
    """No function was found for a job's type. The message says where it was looked for and what to do."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"no function for job type {name!r}: {why}")
        self.name = name


class ProcessDied(DBJobQError):  # noqa: N818 - reads as what it is
    """The process of a job with `executor="process"` ended before its function did: the error of that attempt.

    The function itself never sees this error; a `RetryPolicy` may name it, in `on` or `never`.
    """

    def __init__(self, pid: int, how: str) -> None:
        super().__init__(f"the process of this job {how} (pid {pid})")
        self.pid = pid
