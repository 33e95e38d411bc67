"""`dbjobq enqueue`: write one job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbjobq.cli.output import echo_json, json_option
from dbjobq.cli.settings import Database, database_options
from dbjobq.imports import import_modules

if TYPE_CHECKING:
    from dbjobq.options import EnqueueOptions

__all__ = ["arguments_of", "enqueue"]


class _Moment(click.ParamType[datetime]):
    """A time in ISO 8601; without an offset it is local time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            self.fail(f"{error}; write 2026-01-31T09:30, or with an offset 2026-01-31T09:30+01:00", param, ctx)


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[JSON | KEY=VALUE]...")
@click.option("--queue", metavar="NAME", help="The queue; `default` unless the job type says otherwise.")
@click.option("--priority", type=int, help="Higher runs first.  [default: 5]")
@click.option("--delay", type=float, metavar="SECONDS", help="Not before so many seconds from now.")
@click.option("--at", "execute_at", type=_Moment(), metavar="TIME", help="Not before this time (ISO 8601).")
@click.option("--max-retries", type=int, help="How often to try again after a failure.  [default: 3]")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long one attempt may take.")
@click.option("--unique-key", metavar="KEY", help="While a job with this key waits or runs, print its id instead.")
@click.option("--id", "job_id", metavar="UUID", help="An id of your own: a second call changes nothing.")
@click.option("--import", "modules", multiple=True, metavar="MODULE", help="Import it: its @job options count.")
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
    """Write a job of type NAME, and print its id.

    Its arguments are a JSON object, or KEY=VALUE, where a VALUE that is JSON is taken as such: n=1 is a
    number, n='"1"' a text, name=ann a text too.

    \b
      dbjobq enqueue myapp.jobs.send to=ann@example.com copies=2
      dbjobq enqueue myapp.jobs.send '{"to": "ann@example.com"}' --delay 60 --queue mail
      dbjobq enqueue myapp.jobs.send to=ann@example.com --import myapp.jobs

    The last form knows the function: its arguments are checked, and the options of its @job are used.
    """  # noqa: D301 - click's mark for a block that is not wrapped
    from dbjobq.queue import JobQueue
    from dbjobq.registry import registered

    keywords = arguments_of(arguments)
    import_modules(modules, Path.cwd())
    task = registered().get(name)
    given: EnqueueOptions = {**options, "id": job_id}  # type: ignore[typeddict-item] # pyright: ignore[reportAssignmentType] - checked by `options()`
    with database.storage() as storage:
        try:
            found = JobQueue(storage).options(**given).enqueue(task.function if task else name, **keywords)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from error
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
        found: dict[str, Any] = json.loads(word)
    except ValueError as error:
        raise click.UsageError(f"{word!r} is not a JSON object: {error}") from None
    return found


def _pair(word: str) -> dict[str, Any]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise click.UsageError(f"{word!r}: write an argument as KEY=VALUE, or all of them as a JSON object")
    try:
        return {key: json.loads(value)}
    except ValueError:
        return {key: value}
