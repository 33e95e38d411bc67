"""`dbjobq enqueue`: write one job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.seconds import Seconds
from dbjobq.cli.settings import Database, database_options
from dbjobq.imports import import_modules

if TYPE_CHECKING:
    from dbjobq.queue.options import EnqueueOptions

__all__ = ["arguments_of", "enqueue"]


class _Moment(click.ParamType[datetime]):
    """A time in ISO 8601; without an offset it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            self.fail(f"{error}; write 2026-01-31T09:30, or with an offset 2026-01-31T09:30+01:00", param, ctx)


@click.command(short_help="Enqueue one job, and print its id.")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[JSON | KEY=VALUE]...")
@click.option(
    "--queue", metavar="NAME", help="The queue it goes to.  [default: that of its @job (--import), or `default`]"
)
@click.option("--priority", type=int, metavar="N", help="Jobs with a higher one run first.  [default: 5]")
@click.option("--delay", type=Seconds(0), metavar="SECONDS", help="Run it not before so many seconds from now.")
@click.option(
    "--at",
    "execute_at",
    type=_Moment(),
    metavar="TIME",
    help="Run it not before this time, such as 2026-01-31T09:30 (local) or 2026-01-31T09:30+01:00.",
)
@click.option("--max-retries", type=int, metavar="N", help="Try again so often after failures.  [default: 3]")
@click.option(
    "--timeout",
    type=Seconds(0, min_open=True),
    metavar="SECONDS",
    help="How long one run may take before it counts as failed.  [default: no limit]",
)
@click.option(
    "--unique-key", metavar="KEY", help="If a job with this key waits or runs, enqueue nothing, and print its id."
)
@click.option(
    "--id", "job_id", metavar="UUID", help="Its id, chosen by you. If there is such a job already, nothing is changed."
)
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import this module first: its functions and their @job options are known then.",
)
@json_option
@database_options
def enqueue(  # noqa: PLR0913 - the command's options
    database: Database,
    *,
    name: str,
    arguments: tuple[str, ...],
    modules: tuple[str, ...],
    as_json: bool,
    job_id: str | None,
    **options: Any,
) -> None:
    """Enqueue a job for the function NAME, and print the job's id.

    NAME is module.function, or the name that was given to its @job. The arguments are one JSON object, or KEY=VALUE
    each. A VALUE that is JSON counts as JSON, any other as text: n=1 is a number, n='"1"' and name=ann are text.

    \b
      dbjobq enqueue myapp.jobs.send to=ann@example.com copies=2
      dbjobq enqueue myapp.jobs.send '{"to": "ann@example.com"}' --delay 60
      dbjobq enqueue myapp.jobs.send to=ann@example.com --import myapp.jobs

    With --import the function is known: its arguments are checked, and the options of its @job count. Without it
    nothing is checked, and a worker will find out.

    A call that ended with exit code 1 may have enqueued the job, unless it says that nothing was stored. Give --id to
    repeat it safely.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    from dbjobq.jobs.registry import registered

    keywords = arguments_of(arguments)
    import_modules(modules, Path.cwd())
    task = registered().get(name)
    given: EnqueueOptions = {**options, "id": job_id}  # type: ignore[typeddict-item] # pyright: ignore[reportAssignmentType] - checked by `options()`
    with database.queue() as jobs:
        found = jobs.options(**given).enqueue(task.function if task else name, **keywords)
    if as_json:
        echo_json({"id": found})
    else:
        click.echo(found)


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """Return a job's arguments from the words of a command line: JSON objects and KEY=VALUE.

    Raises:
        click.UsageError: A word is neither, or an argument is given twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        more = _object(word) if word.lstrip().startswith("{") else _pair(word)
        if twice := arguments.keys() & more.keys():
            raise click.UsageError(f"argument {min(twice)!r} is given twice")
        arguments |= more
    return arguments


def _object(word: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _json(word)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{word!r} is not a JSON object: {error}") from None
    return found


def _pair(word: str) -> dict[str, Any]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise click.UsageError(f"{word!r}: write an argument as KEY=VALUE, or all of them as a JSON object")
    try:
        return {key: _json(value)}
    except json.JSONDecodeError:
        return {key: value}


def _json(text: str) -> Any:
    """Return JSON's value. Raises JSONDecodeError if it is none, UsageError if it is one that Python cannot hold."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{text[:50]!r}… is JSON that cannot be read: {error}") from None
