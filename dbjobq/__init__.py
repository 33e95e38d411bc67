"""dbjobq: a background-job queue for Python services that already run PostgreSQL.

    from dbjobq import JobQueue, PostgresStorage, Worker, job

    @job
    def send_email(to: str, subject: str) -> None: ...

    queue = JobQueue(PostgresStorage("postgresql://localhost/app"))
    queue.enqueue(send_email, to="user@example.com", subject="Hello")

    with Worker(queue):
        ...

The names in `__all__` are public; everything else may change. Importing dbjobq imports neither SQLAlchemy nor Alembic.
"""

from dbjobq import hooks
from dbjobq.errors import (
    ConfigError,
    DBJobQError,
    JobNotFound,
    LeaseLost,
    NotSupported,
    ProcessDied,
    SchemaError,
    StorageUnavailable,
    UnknownJobType,
)
from dbjobq.hooks import Hooks
from dbjobq.jobs.context import JobContext
from dbjobq.jobs.middleware import middleware
from dbjobq.jobs.registry import job
from dbjobq.jobs.retry import Discard, Retry, RetryPolicy
from dbjobq.models import Job
from dbjobq.queue.queues import AsyncJobQueue, JobQueue
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.postgres_storage import PostgresStorage
from dbjobq.worker import Worker

__version__ = "0.2.0"

__all__ = [
    "AsyncJobQueue",
    "BaseStorage",
    "ConfigError",
    "DBJobQError",
    "Discard",
    "Hooks",
    "Job",
    "JobContext",
    "JobNotFound",
    "JobQueue",
    "LeaseLost",
    "NotSupported",
    "PostgresStorage",
    "ProcessDied",
    "Retry",
    "RetryPolicy",
    "SchemaError",
    "StorageUnavailable",
    "UnknownJobType",
    "Worker",
    "__version__",
    "hooks",
    "job",
    "middleware",
]
