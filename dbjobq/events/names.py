"""Every event that dbjobq tells, once: its name, level and fields, when it happens, and what to do about it.

`docs/events.md` is made from this table (`python -m dbjobq.events`), and a test compares them.
"""

from __future__ import annotations

from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Final

from dbjobq.events.bus import Event

__all__ = ["EVENTS", "FIELDS"]

_CLI: Final = "dbjobq.cli"
_SCHEMA: Final = "dbjobq.schema"
_NOTHING: Final = "Nothing."

# A worker's life.

WORKER_STARTED: Final = Event(
    name="worker.started",
    level=INFO,
    fields=("worker",),
    says="A worker begins: from here on it connects, and claims jobs.",
    do=_NOTHING,
)
WORKER_SERVING: Final = Event(
    name="worker.serving",
    level=INFO,
    logger=_CLI,
    fields=("tasks", "queues", "database", "schema", "concurrency", "pid"),
    says="A process of `dbjobq worker` has reached the database, and works.",
    do="Nothing. Compare its database and queues with those that you meant.",
)
WORKER_NO_JOB_TYPES: Final = Event(
    name="worker.no_job_types",
    level=WARNING,
    logger=_CLI,
    fields=("modules", "why"),
    says="The modules that `dbjobq worker` was told of register no job type.",
    do="Name the modules that have your `@job` functions.",
)
WORKER_STOPPING: Final = Event(
    name="worker.stopping",
    level=INFO,
    logger=_CLI,
    fields=("pid",),
    says="A process of `dbjobq worker` was told to stop: it claims no more, and lets running jobs finish.",
    do="Nothing. A second signal hands back what still runs.",
)
WORKER_STOPPED: Final = Event(
    name="worker.stopped",
    level=INFO,
    fields=("worker",),
    says="A worker has ended as it was told to.",
    do=_NOTHING,
)
WORKER_STOP_TIMEOUT: Final = Event(
    name="worker.stop_timeout",
    level=ERROR,
    fields=("worker",),
    says="`stop()` returns although a thread of the worker still runs, after it has handed back what it could.",
    do="Find the job that does not end: see `loop.blocked`, `job.long`. What was not handed back is "
    "rescued by others when this worker's lease is over.",
)
WORKER_FAILED: Final = Event(
    name="worker.failed",
    level=CRITICAL,
    fields=("worker", "error"),
    says="A worker has ended for an error, and starts no more jobs. With a traceback where the error is unexpected.",
    do="Mend what the error says, and start it again. `Worker.error` has it, too.",
)
WORKER_UNRELEASED: Final = Event(
    name="worker.unreleased",
    level=WARNING,
    fields=("error",),
    says="A worker that ended could not write how its last jobs ended, or hand them back.",
    do="Nothing. Other workers rescue those jobs when its lease is over, at the cost of an attempt.",
)
WORKER_LEASE_LOST: Final = Event(
    name="worker.lease_lost",
    level=WARNING,
    fields=("worker",),
    says="A worker's lease ended before it was renewed, or its row is gone; it registers anew. Others may "
    "have taken its jobs.",
    do="Find out what kept its heartbeats from the database for so long: a paused machine, an outage, no "
    "CPU. Give a longer `lease` if such pauses are usual.",
)

# Jobs.

JOB_STARTED: Final = Event(
    name="job.started", level=DEBUG, batched=True, job="yes", says="An `async def` job starts.", do=_NOTHING
)
JOB_COMPLETED: Final = Event(
    name="job.completed", level=DEBUG, batched=True, job="yes", says="An `async def` job has returned.", do=_NOTHING
)
JOB_RETRY: Final = Event(
    name="job.retry",
    level=INFO,
    batched=True,
    job="yes",
    fields=("error", "delay"),
    says="An attempt failed; the job runs again after the delay.",
    do="Nothing, unless there are many. `dbjobq jobs show ID` has the traceback.",
)
JOB_FAILED: Final = Event(
    name="job.failed",
    level=ERROR,
    batched=True,
    job="yes",
    fields=("error",),
    says="An attempt failed, and no retry is left: the job is a dead letter. With the exception, where it "
    "was raised in this process.",
    do="Mend the cause, then `dbjobq jobs retry ID`.",
)
JOB_DEAD: Final = Event(
    name="job.dead",
    level=ERROR,
    batched=True,
    job="yes",
    says="A job's worker died while it ran, and no retry is left: the job is a dead letter.",
    do="Find out why the worker died: this job may be the cause (out of memory, a crash in native code).",
)
JOB_RESCUED: Final = Event(
    name="job.rescued",
    level=WARNING,
    batched=True,
    job="yes",
    says="A job's worker died while it ran; this worker has put the job back into its queue, at the cost of "
    "an attempt.",
    do="Find out why the worker died, if nobody killed it.",
)
JOB_RELEASED: Final = Event(
    name="job.released",
    level=WARNING,
    batched=True,
    job="yes",
    says="A running job was handed back to its queue, which uses up no attempt: the worker stops, or its event loop is "
    "given up.",
    do="If deploys do this, give running jobs more time: `shutdown_timeout`.",
)
JOB_CANCELLED: Final = Event(
    name="job.cancelled",
    level=INFO,
    job="yes",
    says="A job was cancelled while it ran here: its function is told, and what it returns is dropped.",
    do=_NOTHING,
)
JOB_TAKEN: Final = Event(
    name="job.taken",
    level=WARNING,
    job="yes",
    says="A job that runs here was given to another worker, or ended from outside: its function is told, and what it "
    "returns is dropped.",
    do="See `worker.lease_lost`: the worker was taken for dead. Or somebody changes dbjobq's tables by hand.",
)
JOB_REFUSED: Final = Event(
    name="job.refused",
    level=WARNING,
    batched=True,
    quiet=INFO,
    quiet_when="the job was cancelled",
    job="yes",
    says="The outcome of a job was not written, since the job was cancelled or taken by another worker meanwhile.",
    do=_NOTHING,
)
JOB_FENCED: Final = Event(
    name="job.fenced",
    level=WARNING,
    job="yes",
    says="The worker's lease is over, so a running job is ended here: others may start it at any moment.",
    do="See `worker.lease_lost`.",
)
JOB_UNKNOWN: Final = Event(
    name="job.unknown",
    level=WARNING,
    batched=True,
    quiet=DEBUG,
    quiet_when="a job of that type was told of before",
    job="yes",
    fields=("error",),
    says="This worker does not know a job's type. The job is put off, which uses up no attempt, and fails if nobody "
    "knows it for an hour (`unknown_within`).",
    do="Deploy the code that has the job type, or name its module to the worker; the error says where it "
    "was looked for.",
)
JOB_SET_ASIDE: Final = Event(
    name="job.set_aside",
    level=ERROR,
    job="yes",
    fields=("error",),
    says="PostgreSQL refuses to write how a job ended, because of the job's own row: the job fails instead.",
    do="Look at the job (`dbjobq jobs show ID`): somebody may have changed its row by hand.",
)
JOB_LONG: Final = Event(
    name="job.long",
    level=WARNING,
    job="yes",
    fields=("seconds", "stack"),
    says="A job without a timeout has run for five minutes; told again after twice as long, and so on.",
    do="If it should be done by now, the stack says where it stands. Give its type a `timeout`.",
)
JOB_STUCK: Final = Event(
    name="job.stuck",
    level=WARNING,
    job="yes",
    fields=("slots_left",),
    says="A job without a timeout has run for so long (`stuck_after`) that other jobs get its slot; it goes "
    "on beside them.",
    do="See `job.long`. When no slots are left to give, such jobs hold up the others again: restart the worker.",
)
JOB_PROCESS_STARTED: Final = Event(
    name="job.process_started",
    level=DEBUG,
    fields=("pid",),
    says='A process for jobs with `executor="process"` was started.',
    do=_NOTHING,
)
JOB_PROCESS_DIED: Final = Event(
    name="job.process_died",
    level=WARNING,
    fields=("pid", "code"),
    says="A process for jobs ended by itself. The job that ran in it, if one did, has failed with `ProcessDied`.",
    do="See the job's error: out of memory, or a crash in native code, perhaps.",
)
JOB_PROCESS_KILLED: Final = Event(
    name="job.process_killed",
    level=WARNING,
    quiet=INFO,
    quiet_when="the job was cancelled",
    job="yes",
    fields=("pid",),
    says="A job was to end, did not in time or could not be asked to, and its process was killed.",
    do=_NOTHING,
)
MODULE_IMPORTING: Final = Event(
    name="module.importing",
    level=INFO,
    job="yes",
    fields=("modules",),
    says="A job's type is not known yet, so modules that may register it are imported, in a thread.",
    do="Nothing. To have them imported at the start, name them to the worker.",
)
TRANSACTION_FAILED: Final = Event(
    name="transaction.failed",
    level=WARNING,
    job="yes",
    fields=("error",),
    says="The transaction of a transactional job could not be committed, so nothing of it was written; the "
    "job is handed back, which uses up no attempt.",
    do="See the error: the database went away, or refused the commit.",
)

# Threads, slots, the event loop.

THREAD_ABANDONED: Final = Event(
    name="thread.abandoned",
    level=WARNING,
    quiet=INFO,
    quiet_when="the job was cancelled",
    job="yes",
    says="A `def` job was to end, and a thread cannot be stopped: it is left to itself, another takes its "
    "place, and what it returns is dropped.",
    do="Have long `def` jobs look at `ctx.cancelled`.",
)
THREAD_UNAVAILABLE: Final = Event(
    name="thread.unavailable",
    level=ERROR,
    job="yes",
    fields=("error",),
    says="The system gives no more threads, so a `def` job is handed back, which uses up no attempt.",
    do="Look for `thread.abandoned`: jobs that do not end leave threads behind. Give them timeouts of "
    "their own calls, and restart the worker.",
)
SLOT_BROKEN: Final = Event(
    name="slot.broken",
    level=ERROR,
    says="A slot of the worker ended for an unexpected error and was replaced. With its traceback.",
    do="Report it: this is an error in dbjobq.",
)
TASK_EXITED: Final = Event(
    name="task.exited",
    level=ERROR,
    fields=("error",),
    says="A task that a job had started raised SystemExit or KeyboardInterrupt; the worker goes on.",
    do="Take `sys.exit()` out of code that jobs run.",
)
TASK_ABANDONED: Final = Event(
    name="task.abandoned",
    level=WARNING,
    fields=("tasks",),
    says="Tasks that jobs had started did not end when the worker did, though they were cancelled.",
    do="Have jobs await what they start.",
)
LOOP_BLOCKED: Final = Event(
    name="loop.blocked",
    level=WARNING,
    job="perhaps",
    fields=("seconds", "stack", "jobs"),
    optional=frozenset({"jobs"}),
    says="A job blocks the worker's event loop, so that no other `async def` job goes on. The stack says "
    "where it stands.",
    do="Make the call that blocks in a thread (`asyncio.to_thread`), or make the job a `def`.",
)
LOOP_UNBLOCKED: Final = Event(
    name="loop.unblocked",
    level=INFO,
    fields=("seconds",),
    says="The event loop goes on.",
    do="See `loop.blocked`.",
)
LOOP_REPLACED: Final = Event(
    name="loop.replaced",
    level=ERROR,
    job="perhaps",
    fields=("seconds", "jobs"),
    optional=frozenset({"jobs"}),
    says="The event loop was blocked for so long that the worker goes on in another thread, with a loop of its own.",
    do="See `loop.blocked`. The thread that was left is there until its job ends; restart the worker.",
)
PROCESS_STALLED: Final = Event(
    name="process.stalled",
    level=WARNING,
    job="perhaps",
    fields=("seconds", "jobs"),
    optional=frozenset({"jobs"}),
    says="The whole process stood still for a while: it was paused, had no CPU, or a job kept the interpreter's lock.",
    do='If it happens often: give the machine more CPU, or run the job that is named with `executor="process"`.',
)

# The database.

DATABASE_UNAVAILABLE: Final = Event(
    name="database.unavailable",
    level=WARNING,
    fields=("error", "pid"),
    optional=frozenset({"pid"}),
    says="The database cannot be reached; the worker tries again until it can.",
    do="See the error.",
)
DATABASE_LOST: Final = Event(
    name="database.lost",
    level=WARNING,
    fields=("error",),
    says="The connection to the database is lost. Outcomes are kept, and written when it is back.",
    do="Nothing, if `database.restored` follows soon.",
)
DATABASE_REFUSES: Final = Event(
    name="database.refuses",
    level=WARNING,
    fields=("error",),
    says="The database answers, but with an error that may pass: no space left, a read-only server. The "
    "worker tries again.",
    do="Mend what the error says.",
)
DATABASE_RESTORED: Final = Event(
    name="database.restored", level=INFO, says="The database answers again, and the worker goes on.", do=_NOTHING
)
CLAIMS_RECOVERED: Final = Event(
    name="claims.recovered",
    level=WARNING,
    fields=("jobs",),
    says="Jobs that were claimed, and of which the worker never heard because a reply was lost, were handed "
    "back, which used up no attempt.",
    do=_NOTHING,
)
PLACES_TIDIED: Final = Event(
    name="places.tidied",
    level=WARNING,
    fields=("rows",),
    says="Jobs stood in several places at once (ready, scheduled, running, done), and are left in one of them.",
    do="Find out who writes to dbjobq's tables by hand.",
)
PLACES_CLEARED: Final = Event(
    name="places.cleared",
    level=WARNING,
    quiet=DEBUG,
    quiet_when="this worker has told of such rows before",
    fields=("rows",),
    says="Rows of jobs that are gone stood before the others in a queue, and were cleared away.",
    do="Find out who deletes from the table `job`; let dbjobq delete old jobs.",
)
LISTENER_LOST: Final = Event(
    name="listener.lost",
    level=WARNING,
    fields=("error",),
    says="The connection that listens for notifications is lost. Until it is back, new jobs are found by "
    "polling alone.",
    do="Nothing, if `listener.restored` follows soon.",
)
LISTENER_RESTORED: Final = Event(name="listener.restored", level=INFO, says="Notifications arrive again.", do=_NOTHING)
LISTENER_DEAF: Final = Event(
    name="listener.deaf",
    level=WARNING,
    fields=("error",),
    says="PostgreSQL accepts LISTEN, but no notification arrives: a pooler is in between. This worker only polls.",
    do="Give it a direct DSN for listening: `listen_conninfo`, `--listen-dsn`.",
)
SERVICE_FAILING: Final = Event(
    name="service.failing",
    level=WARNING,
    fields=("service", "error"),
    says="A thread beside the event loop (heartbeat, watch, rescue) cannot do its work for now, and goes on trying.",
    do="See the error; the database may be away.",
)
SERVICE_BROKEN: Final = Event(
    name="service.broken",
    level=ERROR,
    fields=("service",),
    says="A thread beside the event loop met an unexpected error, and goes on. With its traceback.",
    do="Report it: this is an error in dbjobq.",
)

# The processes of `dbjobq worker --processes` and `--reload`.

PROCESS_DIED: Final = Event(
    name="process.died",
    level=WARNING,
    logger=_CLI,
    fields=("pid", "code", "restart_in"),
    says="A worker process ended though nobody told it to; another is started in its place after the delay.",
    do="See what it logged last. A negative code is the signal that killed it: -9 without your doing is out of memory.",
)
PROCESS_WAITING: Final = Event(
    name="process.waiting",
    level=ERROR,
    logger=_CLI,
    fields=("pid", "why"),
    says="A worker process could not start, as it has logged itself; with `--reload` the next is started "
    "when a file changes.",
    do="Mend what it has logged.",
)
PROCESS_KILLED: Final = Event(
    name="process.killed",
    level=ERROR,
    logger=_CLI,
    fields=("pid", "why"),
    says="A worker process was told to end, did not within its time, and was killed.",
    do="See `worker.stop_timeout`. Its jobs are rescued when its lease is over.",
)
PROCESS_STOPPING: Final = Event(
    name="process.stopping",
    level=INFO,
    logger=_CLI,
    fields=("processes",),
    says="A signal came: all worker processes are told to stop.",
    do="Nothing. A second signal hands back what still runs.",
)
PROCESS_RELOADING: Final = Event(
    name="process.reloading",
    level=INFO,
    logger=_CLI,
    fields=("changed",),
    says="Files changed, so the worker processes are replaced (`--reload`).",
    do=_NOTHING,
)

# Hooks.

HOOK_FAILED: Final = Event(
    name="hook.failed",
    level=ERROR,
    fields=("hook",),
    says="A hook raised an exception, which harms no job. With its traceback; told once a minute for each hook.",
    do="Mend the hook.",
)
HOOK_SLOW: Final = Event(
    name="hook.slow",
    level=WARNING,
    fields=("hook", "seconds"),
    says="A hook took more than a second, or `enqueueing` more than 50 ms. Told once a minute for each hook.",
    do="Have the hook hand its work to a thread of its own.",
)
HOOK_LEFT_OUT: Final = Event(
    name="hook.left_out",
    level=WARNING,
    fields=("calls",),
    says="Hooks are slower than what happens, so that some calls of them were left out. Told once a minute.",
    do="See `hook.slow`. What hooks count is too low by those calls.",
)

# Migrations.

MIGRATE_WAITING: Final = Event(
    name="migrate.waiting",
    level=INFO,
    logger=_SCHEMA,
    fields=("by",),
    says="Another migration of the same schema is under way; this one waits for it.",
    do=_NOTHING,
)
MIGRATE_BLOCKED: Final = Event(
    name="migrate.blocked",
    level=WARNING,
    logger=_SCHEMA,
    fields=("by", "retry_in"),
    says="A migration could not have its locks within half a second, let the others pass, and tries again.",
    do="Nothing. If it lasts, end the transactions that are named.",
)

EVENTS: Final = {event.name: event for event in tuple(globals().values()) if isinstance(event, Event)}
"""The table, by name, in the order in which it is read."""

FIELDS: Final = {
    "attempt": "Which attempt of the job it is, from 1.",
    "by": "Who is in the way.",
    "calls": "How many calls.",
    "changed": "The files that changed.",
    "code": "The exit code of a process; the negative number of the signal that ended it.",
    "concurrency": "How many jobs run at once.",
    "database": "The database, as `name@host`.",
    "delay": "Seconds until the next attempt.",
    "error": "The error, in one line, without passwords.",
    "hook": "The class and method of the hook.",
    "job_id": "The job's id.",
    "job_type": "The job's type: the name of its function.",
    "jobs": "Several jobs: how many, or (`loop.*`, `process.stalled`) the type and id of each, at most ten.",
    "modules": "The modules that were named, or are imported.",
    "pid": "The process id.",
    "processes": "How many processes there are.",
    "queue": "The job's queue.",
    "queues": "The queues that are served, or `all`.",
    "restart_in": "Seconds until the process is started again.",
    "retry_in": "Seconds until the next try.",
    "rows": "How many rows.",
    "schema": "The schema of dbjobq's tables.",
    "seconds": "For how long.",
    "service": "The thread: `heartbeat`, `watch` or `rescue`.",
    "slots_left": "How many more jobs can be given up on before they hold up others.",
    "stack": "Where the code stands: the innermost calls.",
    "tasks": "The job types that are known, or how many; for `task.abandoned` how many asyncio tasks.",
    "why": "Why.",
    "worker": "The worker's name, `Job.worker_id` of its jobs.",
}
"""The meaning of each field, for all events."""
