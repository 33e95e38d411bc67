"""`@job`, and the table of functions it fills: name → function, options, signature."""

from __future__ import annotations

import importlib
import inspect
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, overload

from dbjobq.checks import INT_MAX, check_integer, check_name, check_seconds
from dbjobq.errors import UnknownJobType
from dbjobq.imports import hear_again
from dbjobq.jobs.middleware import Middleware, checked_middleware
from dbjobq.jobs.retry import DEFAULT_RETRY, RetryPolicy
from dbjobq.jobs.signatures import context_parameters, signature

__all__ = ["JobType", "defined_in", "find", "home_of", "job", "known", "openable", "registered", "task_of"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_QUEUE: Final = "default"
DEFAULT_PRIORITY: Final = 5
DEFAULT_MAX_RETRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobType:
    """A job type: a function, the options of its `@job`, and what its signature says. Compared by identity."""

    name: str
    function: Callable[..., Any]
    max_retries: int = DEFAULT_MAX_RETRIES
    priority: int = DEFAULT_PRIORITY
    queue: str = DEFAULT_QUEUE
    timeout: float | None = None
    retry: RetryPolicy = DEFAULT_RETRY
    transactional: bool = False
    executor: Literal["inline", "process"] = "inline"
    is_async: bool = False
    on_thread: bool = True
    """Whether a worker runs it on a thread; everything else is awaited on the worker's event loop."""
    apart: bool = False
    """Whether it needs more than a plain call: a transaction, or a process of its own."""
    wraps_async: bool = False
    """Whether it is a `def` that wraps an `async def`: it may return something that is still to be awaited."""
    aliases: tuple[str, ...] = ()
    """Former names, under which jobs may still wait."""
    middleware: tuple[Middleware, ...] = ()
    """The middleware around its attempts, within that of the process and of the worker; the outermost first."""
    implied: bool = False
    """Whether nobody has decorated the function: it was enqueued by reference, or found in a worker's module."""
    context: str | None = None
    """The name of the parameter that takes the `JobContext`; None without one."""
    parameters: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()
    """`parameters` as a set, for looking names up."""
    required: frozenset[str] = frozenset()
    any_keyword: bool = False

    @property
    def awaits_queue(self) -> bool:
        """Whether `ctx.queue` is an `AsyncJobQueue` for it."""
        return self.is_async or self.wraps_async

    def bind(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a call's arguments by name, checked against the signature.

        Raises:
            TypeError: An argument is missing, unknown, given twice, or is the context's. The message names it.
        """
        if arguments:
            if len(arguments) > len(self.parameters):
                raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments, got {len(arguments)}")
            named = dict(zip(self.parameters, arguments, strict=False))
            if twice := named.keys() & keywords.keys():
                raise TypeError(f"{self.name}() got {_names(twice)} twice")
            keywords = {**named, **keywords}
        given = keywords.keys()
        if self.required <= given and (given <= self.known or (self.any_keyword and self.context not in given)):
            return keywords
        if not self.required <= given:
            raise TypeError(f"{self.name}() is missing {_names(self.required - given)}")
        if self.context in given:
            raise TypeError(f"{self.name}(): {self.context!r} is the JobContext, which the worker fills in")
        unknown, takes = _names(given - self.known), _names(self.parameters) or "none"
        raise TypeError(f"{self.name}() has no argument {unknown}; it takes {takes}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names, key=str))


_tasks: Final[dict[str, JobType]] = {}
_by_function: Final[dict[Callable[..., Any], JobType]] = {}


def registered() -> Mapping[str, JobType]:
    """Return every task of this process by name; the mapping itself, so that look-ups are one step."""
    return _tasks


@overload
def job(function: F, /) -> F: ...
@overload
def job(
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    max_retries: int = DEFAULT_MAX_RETRIES,
    timeout: float | None = None,
    retry: RetryPolicy | float | None = None,
    transactional: bool = False,
    executor: Literal["inline", "process"] = "inline",
    middleware: Iterable[Middleware] | Middleware = (),
    aliases: Iterable[str] | str = (),
) -> Callable[[F], F]: ...
def job(  # noqa: PLR0913 - the options of a job type
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    priority: int = DEFAULT_PRIORITY,
    max_retries: int = DEFAULT_MAX_RETRIES,
    timeout: float | None = None,
    retry: RetryPolicy | float | None = None,
    transactional: bool = False,
    executor: Literal["inline", "process"] = "inline",
    middleware: Iterable[Middleware] | Middleware = (),
    aliases: Iterable[str] | str = (),
) -> F | Callable[[F], F]:
    """Register a function, sync or async, as a job type; it stays callable as itself.

    Args:
        function: The function, when used as `@job` without parentheses.
        name: The type's name in the database; `module.qualname` by default. Give one, and the function may move.
        queue: Where its jobs go unless the call says otherwise.
        priority: Higher runs first.
        max_retries: How often a job is tried again after failures; it starts at most `max_retries + 1` times.
        timeout: Seconds that an attempt may take. An `async def` is cancelled then. A `def` cannot be stopped, but its
            result no longer counts, and it sees `ctx.cancelled`. A process of its own is killed.
        retry: A `RetryPolicy`, or a constant number of seconds between attempts.
        transactional: `ctx.connection` is a connection whose transaction commits together with the job's completion:
            everything the function writes there happens exactly once.
        executor: Where a worker runs the function. `inline`: an `async def` on its event loop, a `def` on a thread.
            `process`: in a process beside the worker, for functions that compute for long, hold the GIL, or may crash:
            a crash costs the job an attempt, and leaves the worker alone. The function must then stand at the top
            level of a module, or of the script (docs/processes.md).
        middleware: Generator functions that run around each attempt, the outermost first (docs/middleware.md).
        aliases: Former names of the type: jobs that wait under one of them are run by this function, too
            (docs/changing-jobs.md). New jobs are enqueued under `name`.

    Raises:
        TypeError: `function` is not a function whose arguments can be given by name, or an option has the wrong type.
        ValueError: An option is out of range or does not go with another, or another function has this name. A function
            defined in the same place may take the name over (a module that is loaded again, a function that is made
            anew); the newest runs. A function that is registered under a second name is still enqueued under its first.
    """

    def register(function: F) -> F:
        if retry is not None and not isinstance(retry, RetryPolicy):
            policy = RetryPolicy(base=check_seconds(retry, "retry"), factor=1.0)
        else:
            policy = retry or DEFAULT_RETRY
        if not isinstance(transactional, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            raise TypeError(f"transactional={transactional!r}: must be True or False")
        if executor not in {"inline", "process"}:
            raise ValueError(f"executor={executor!r}: must be 'inline' or 'process'")
        if transactional and executor == "process":
            raise ValueError("transactional=True with executor='process': the transaction is in the worker's process")
        task = _make_task(
            function,
            name=None if name is None else check_name(name, "name"),
            queue=check_name(queue, "queue"),
            priority=check_integer(priority, "priority", -INT_MAX - 1),
            max_retries=check_integer(max_retries, "max_retries", 0),
            timeout=None if timeout is None else check_seconds(timeout, "timeout", above_zero=True),
            retry=policy,
            transactional=transactional,
            executor=executor,
            middleware=checked_middleware(middleware, "@job", is_async=inspect.iscoroutinefunction(function)),
            aliases=tuple(check_name(alias, "alias") for alias in ([aliases] if isinstance(aliases, str) else aliases)),
        )
        for taken in (task.name, *task.aliases):
            other = _tasks.get(taken)
            if other is not None and (
                _origin(other.function) != _origin(function)
                or (function.__name__ == "<lambda>" and not _same(other.function, function))
            ):
                raise ValueError(
                    f"job type {taken!r} is taken by {'.'.join(_origin(other.function))}: give one another name="
                )
        _add(task)
        return function

    return register if function is None else register(function)


def _origin(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _make_task(function: Callable[..., Any], *, name: str | None = None, **options: Any) -> JobType:
    if not inspect.isfunction(function):
        raise TypeError(f"{function!r}: a job is a function, defined with def or async def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__}: a generator cannot be a job, calling it runs nothing")
    parameters: list[str] = []
    required: set[str] = set()
    context, any_keyword = None, False
    contexts = context_parameters(function)
    for parameter in signature(function).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{function.__qualname__}: {parameter.name!r} is positional-only, but jobs go by name")
        if parameter.kind is parameter.VAR_KEYWORD:
            any_keyword = True
        elif parameter.name in contexts:
            context = parameter.name
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            parameters.append(parameter.name)
            if parameter.default is parameter.empty:
                required.add(parameter.name)
    is_async, in_process = inspect.iscoroutinefunction(function), options.get("executor") == "process"
    return JobType(
        name=name or f"{home_of(function)[0]}.{function.__qualname__}",
        function=function,
        is_async=is_async,
        wraps_async=not is_async and inspect.iscoroutinefunction(inspect.unwrap(function)),
        on_thread=not is_async and not in_process,
        apart=in_process or options.get("transactional", False),
        context=context,
        parameters=tuple(parameters),
        known=frozenset(parameters),
        required=frozenset(required),
        any_keyword=any_keyword,
        **options,
    )


def home_of(function: Callable[..., Any]) -> tuple[str, str | None]:
    """Return the module that defines a function, as others import it, and the file if it is a script's.

    A script's functions are named by its file, as a worker that imports the file names them.
    """
    module = function.__module__
    if module != "__main__":
        return module, None
    main = sys.modules[module]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return spec.name, None
    return (Path(file).stem, file) if file else (module, None)


def task_of(function: Callable[..., Any]) -> JobType:
    """Return a function's task; a function that `@job` has not seen is registered with the defaults.

    A job names its function. So a function that shares its name with another (lambdas do, and functions made in one
    place) is refused, unless the two are the same, or the name leads to it by now (a module loaded again, a notebook).

    Raises:
        TypeError: The function cannot be a job, or another function has its name.
    """
    task = _by_function.get(function) or _by_function.get(inspect.unwrap(function))
    if task is not None:
        return task
    task = _make_task(function, implied=True)
    holder = _tasks.get(task.name)
    if holder is None or defined_in(function.__module__, function.__qualname__) is function:
        return _add(task)
    if not _same(holder.function, function):
        raise TypeError(
            f"job type {task.name!r} is another function by the same name, which would run instead: "
            "register each with @job(name=…)"
        )
    return holder  # the new function is not remembered: one that is made anew for every call would fill the memory


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Tell whether two functions are sure to do the same in every call."""
    if not (inspect.isfunction(one) and inspect.isfunction(other)) or one.__closure__ or other.__closure__:
        return False
    mine = (one.__code__, one.__defaults__, one.__kwdefaults__)
    return mine == (other.__code__, other.__defaults__, other.__kwdefaults__)


def _add(task: JobType) -> JobType:
    for name in (task.name, *task.aliases):
        _tasks[name] = task
    first = _by_function.get(task.function)
    if first is None or first.implied or first.name == task.name:  # a second name is for jobs that wait under it
        _by_function[task.function] = task
    return task


def known(name: str, imports: Iterable[str] = ()) -> JobType | None:
    """Return the task of a job type if that takes no import, else None; see `find`."""
    if (task := _tasks.get(name)) is not None:
        return task
    for module in imports:
        if name.startswith(f"{module}.") and (function := defined_in(module, name[len(module) + 1 :])) is not None:
            return _by_function.get(function) or _add(_make_task(function, name=name, implied=True))
    return None


def openable(name: str, imports: Iterable[str]) -> list[str]:
    """Return the modules that may be imported for a job type, the innermost first.

    Such a module lies below a name of `imports` that is a package, has a plain name (never `__main__`, nor `__init__` a
    second time), and is not loaded: a loaded module has registered its functions already.
    """
    packages = [module for module in imports if hasattr(sys.modules.get(module), "__path__")]
    parts = name.split(".")
    found: list[str] = []
    for end in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:end])
        above = sys.modules.get(".".join(parts[: end - 1]))
        if (
            any(module.startswith(f"{package}.") for package in packages)
            and all(map(_plain, parts[:end]))
            and module not in sys.modules
            and (above is None or hasattr(above, "__path__"))
        ):
            found.append(module)
    return found


def _plain(part: str) -> bool:
    """Tell whether an `import` statement could use this name, and Python runs no such module by itself."""
    return part.isidentifier() and unicodedata.normalize("NFKC", part) == part and not part.startswith("__")


def find(name: str, imports: Iterable[str] = ()) -> JobType:
    """Return the task of a job type, for a worker that was named some modules.

    A row in the table must not make a worker call whatever it names. A worker calls only functions that are registered,
    that were enqueued by reference in this process, or that a module named to the worker defines. Another module is
    imported only if it is `openable`, and must then register the name.

    Raises:
        UnknownJobType: There is none. The message says where it was looked for and what to do.
    """
    imports = list(imports)
    if (task := known(name, imports)) is not None:
        return task
    for module in openable(name, imports):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                continue
            raise UnknownJobType(name, f"importing {module} failed: {error}") from error
        except (Exception, SystemExit) as error:
            raise UnknownJobType(name, f"importing {module} failed: {type(error).__name__}: {error}") from error
        hear_again()
        if (task := _tasks.get(name)) is not None:
            return task
    where = f"the modules named to it ({', '.join(imports) or 'none'}) and {len(_tasks)} registered functions"
    raise UnknownJobType(
        name,
        f"this worker looked in {where}. Decorate the function with @job in a module that is named to the worker "
        f"(dbjobq worker MODULE, or Worker(…, imports=[…])), and deploy it there",
    )


def defined_in(module: str, qualname: str) -> Callable[..., Any] | None:
    """Return the function that a module defines under a name; None if there is none."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if inspect.isfunction(found) and found.__module__ == module else None
