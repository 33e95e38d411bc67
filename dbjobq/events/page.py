"""The page `docs/events.md`, made from the table of events: for `python -m dbjobq.events`."""

from __future__ import annotations

from logging import getLevelName
from typing import Final

from dbjobq.events.bus import Event
from dbjobq.events.names import EVENTS, FIELDS

__all__ = ["page"]

_HEAD: Final = """\
<!-- Made by `python -m dbjobq.events > docs/events.md`: change dbjobq/events/names.py instead. -->

# Events

All that dbjobq logs, event by event: when, at which level, with what data, and what to do about it.

A log line's message is the event's name, and nothing else; its data are fields of the record (`extra`), so that a
search for `job.failed` finds all of them, whatever the job. `dbjobq worker` prints them as `event key=value`, or
with `--log-json` as one JSON object a line. Arguments of jobs are never logged, and passwords in DSNs are left out
of errors.

| logger | says |
| --- | --- |
| `dbjobq.worker` | what a worker does; its own steps are INFO, each job's start and end DEBUG |
| `dbjobq.cli` | what the command `dbjobq worker` and its processes do |
| `dbjobq.schema` | what a migration waits for |
| `dbjobq.job.TYPE` | nothing of dbjobq's: it is the logger of a job's own lines, `ctx.logger` |

**Levels.** INFO is what goes as it should. WARNING is what went wrong and needs nobody, unless it keeps coming.
ERROR is for a person: a job that has failed for good, or an error in dbjobq. CRITICAL is a worker that has ended.
An error tracker that listens at ERROR is told of each dead letter, with its exception.

**Which job.** An event about a job has `job_id`, `job_type`, `queue` and `attempt`. `dbjobq worker` adds these to
what jobs log by any logger of their own, too.

**Silence.** `logging.config.dictConfig` disables all loggers that exist, unless it is told
`disable_existing_loggers: False`. A job, or a module of jobs, that calls it so does not silence dbjobq: a disabled
logger is enabled when there is something to say. To hear less of a logger, give it a level:
`logging.getLogger("dbjobq.worker").setLevel(logging.ERROR)`.

Programs that want to be told, and not to read logs, use [hooks](hooks.md).
"""

_FAMILIES: Final = {
    "worker": ("A worker's life", "What begins and ends a worker."),
    "job": ("Jobs", "What becomes of one job."),
    "module": ("Modules", ""),
    "transaction": ("Transactions", "Of jobs with `@job(transactional=True)`."),
    "thread": ("Threads", "Of `def` jobs."),
    "slot": ("Slots", "A slot is room for one running job."),
    "task": ("asyncio tasks", "What jobs start and do not await."),
    "loop": ("The event loop", "All `async def` jobs of a worker share one."),
    "process": ("Processes", "The whole process; and the processes of `dbjobq worker --processes` and `--reload`."),
    "database": ("The database", "Connections of a worker. Each trouble is told once, until it is over."),
    "claims": ("Claims", ""),
    "places": ("Places", "A place is the row that says which state a job is in."),
    "listener": ("Notifications", "They wake a worker that sleeps; without them it polls."),
    "service": ("Services", "What a worker does beside its jobs."),
    "migrate": ("Migrations", "`dbjobq migrate`."),
    "hook": ("Hooks", "Your own code, told by [hooks](hooks.md)."),
}


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for family, (title, says) in _FAMILIES.items():
        parts += [f"## {title}\n", *([f"{says}\n"] if says else [])]
        parts += [_section(event) for name, event in EVENTS.items() if name.partition(".")[0] == family]
    parts += ["## Fields\n", "| field | means |\n| --- | --- |"]
    parts += [f"| `{name}` | {meaning} |" for name, meaning in FIELDS.items()]
    return "\n".join(parts) + "\n"


def _section(event: Event) -> str:
    level = getLevelName(event.level)
    quiet = "" if event.quiet is None else f"; {getLevelName(event.quiet)} if {event.quiet_when}"
    job = {"no": [], "yes": ["the job's"], "perhaps": ["the job's, if it is one"]}[event.job]
    data = job + [f"`{field}`{' (not always)' if field in event.optional else ''}" for field in event.fields]
    lines = [
        f"### `{event.name}`\n",
        f"{event.says}\n",
        f"- **Level**: {level}{quiet}. Logger: `{event.logger}`.",
        f"- **Fields**: {', '.join(data) or 'none'}.",
        f"- **What to do**: {event.do}\n",
    ]
    return "\n".join(lines)
