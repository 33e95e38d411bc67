"""`@job`, what may be one, how calls are bound, and what a row in the table may make a worker run."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import pytest

import dbjobq
from dbjobq import JobContext, JobQueue, NotSupported, RetryPolicy, UnknownJobType, job
from dbjobq.jobs import registry
from dbjobq.jobs.registry import JobType, find, openable, task_of
from dbjobq.jobs.retry import DEFAULT_RETRY
from dbjobq.models import Job

PACKAGES = str(Path(__file__).parent / "packages")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts with an empty table, and leaves the others' as it was."""
    monkeypatch.setattr(registry, "_tasks", {})
    monkeypatch.setattr(registry, "_by_function", {})
    monkeypatch.setattr(sys, "path", [PACKAGES, *sys.path])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in {"shop", "outsider"}]:
        del sys.modules[name]


def plain(a: int, b: str = "x") -> None: ...


# The decorator.


def test_job_returns_the_function_itself() -> None:
    def one(n: int) -> int:
        return n + 1

    async def two() -> None: ...

    assert job(one) is one
    assert job(max_retries=1)(two) is two
    assert one(1) == 2
    assert task_of(one).is_async is False
    assert task_of(two).is_async is True


def test_job_without_options_has_the_contracts_defaults() -> None:
    task = task_of(job(plain))
    assert asdict(task) == asdict(JobType(
        name="tests.unit.test_registry.plain", function=plain, max_retries=3, priority=5, queue="default",
        timeout=None, retry=DEFAULT_RETRY, transactional=False, is_async=False, context=None, parameters=("a", "b"),
        known=frozenset({"a", "b"}),
        required=frozenset({"a"}), any_keyword=False,
    ))  # fmt: skip


def test_job_takes_its_options() -> None:
    policy = RetryPolicy(base=1.0)
    job(name="n", queue="q", priority=-1, max_retries=0, timeout=2, retry=policy, transactional=True)(plain)
    task = find("n")
    assert task.function is plain
    assert (task.queue, task.priority, task.max_retries, task.timeout) == ("q", -1, 0, 2.0)
    assert task.retry is policy
    assert task.transactional
    assert task_of(plain) is task


def test_a_number_of_seconds_is_a_constant_retry() -> None:
    job(retry=30)(plain)
    assert [task_of(plain).retry.delay(n, 0.0) for n in (1, 2, 9)] == [30.0] * 3


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"name": ""}, ValueError, "name="),
        ({"name": "a\x00"}, ValueError, "NUL"),
        ({"queue": ""}, ValueError, "queue="),
        ({"queue": 5}, TypeError, "queue="),
        ({"priority": 2**31}, ValueError, "priority="),
        ({"priority": "high"}, TypeError, "priority="),
        ({"max_retries": -1}, ValueError, "max_retries="),
        ({"max_retries": None}, TypeError, "max_retries="),
        ({"timeout": 0}, ValueError, "timeout="),
        ({"timeout": "5"}, TypeError, "timeout="),
        ({"retry": -1}, ValueError, "base=|retry="),
        ({"retry": "never"}, TypeError, "retry"),
        ({"retry": True}, TypeError, "retry"),
        ({"transactional": "no"}, TypeError, "transactional"),
    ],
    ids=ascii,
)
def test_options_of_a_job_type_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        job(**options)(plain)
    assert registry.registered() == {}


class Callback:
    def __call__(self) -> None: ...

    def method(self) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> Any:
    yield 1


def positional(a: int, /) -> None: ...


@pytest.mark.parametrize(
    "wrong", [Callback, Callback(), Callback().method, print, generator, async_generator, positional, 5]
)
def test_what_is_no_function_to_call_by_name_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        job(wrong)
    with pytest.raises(TypeError):
        task_of(wrong)


def adder(by: int) -> Callable[[int], int]:
    """Makes functions that share a name, and are not the same."""

    def add(n: int) -> int:
        return n + by

    return add


def pair(first: str = "a", second: str = "a") -> tuple[Callable[..., str], Callable[..., str]]:
    """Two functions by one name that are the same if their defaults are."""

    def made(word: str) -> Callable[..., str]:
        def say(word: str = word, *, loud: bool = False) -> str:
            return word.upper() if loud else word

        return say

    return made(first), made(second)


def test_a_function_by_another_s_name_is_not_enqueued_in_its_place() -> None:
    lambdas: list[Callable[[], int]] = [lambda: 1, lambda: 2]
    for one, other in (lambdas, (adder(1), adder(2)), pair("a", "b")):
        task = task_of(one)
        with pytest.raises(TypeError, match=r"register each with @job\(name=…\)"):
            task_of(other)
        assert find(task.name).function is task_of(one).function is one


def test_the_same_function_made_again_is_the_same_job() -> None:
    one, other = pair()
    assert one is not other
    assert task_of(one) is task_of(other)
    assert other not in registry._by_function  # pyright: ignore[reportPrivateUsage]


def test_an_undecorated_function_does_not_take_a_decorated_one_s_name() -> None:
    task = task_of(job(max_retries=0)(adder(1)))
    with pytest.raises(TypeError, match="name="):
        task_of(adder(2))
    assert find(task.name) is task


def test_a_module_s_own_function_may_be_defined_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def anew(a: int, b: int) -> None: ...

    anew.__qualname__ = "plain"
    name = task_of(plain).name
    monkeypatch.setattr(sys.modules[__name__], "plain", anew)
    assert task_of(anew).name == name
    assert find(name).function is anew


def test_a_decorated_function_may_be_made_again_but_a_lambda_needs_a_name() -> None:
    one, other = job(adder(1)), job(adder(2))
    assert find(task_of(one).name).function is other
    job(lambda: 1)
    with pytest.raises(ValueError, match=r"<lambda>.*name="):
        job(lambda: 2)
    job(name="two")(lambda: 2)


def test_two_functions_cannot_have_one_name() -> None:
    job(name="taken")(plain)

    def other() -> None: ...

    with pytest.raises(ValueError, match=r"'taken'.*plain"):
        job(name="taken")(other)
    assert find("taken").function is plain


def test_a_module_that_is_loaded_again_may_register_again() -> None:
    mail = importlib.import_module("shop.mail")
    before = find("custom-name").function
    importlib.reload(mail)
    assert find("custom-name").function is not before


def test_an_undecorated_function_is_registered_by_its_first_use() -> None:
    with pytest.raises(UnknownJobType):
        find("tests.unit.test_registry.plain")
    task = task_of(plain)
    assert find("tests.unit.test_registry.plain") is task


# The context.


def later(ctx: JobContext, a: int) -> None: ...
def maybe(a: int, ctx: JobContext | None = None) -> None: ...
def optional(a: int, ctx: Optional[JobContext] = None) -> None: ...  # noqa: UP045 - people write it
def dotted(a: int, ctx: dbjobq.JobContext) -> None: ...
def keyword_only(a: int, *, context: JobContext) -> None: ...
def quoted(a: int, ctx: "JobContext") -> None: ...  # noqa: UP037 - people write it
def typed(a: int, ctx: JobContext[JobQueue]) -> None: ...


@pytest.mark.parametrize("function", [later, maybe, optional, dotted, keyword_only, quoted, typed])
def test_the_context_is_found_by_its_annotation_though_annotations_are_text(function: Callable[..., Any]) -> None:
    task = task_of(function)
    assert task.context in {"ctx", "context"}
    assert task.parameters == ("a",)
    assert task.bind((), {"a": 1}) == {"a": 1}


def test_the_context_is_found_where_annotations_are_evaluated() -> None:
    annotations = {"f": "C", "g": "C | None", "h": "Optional[C]", "i": "C[int]", "j": "C[int, str] | None"}
    code = "\n".join(f"def {name}(a, ctx: {said}): ..." for name, said in annotations.items())
    scope: dict[str, Any] = {"C": JobContext, "Optional": Optional, "__name__": __name__}
    exec(compile(code, "x", "exec", dont_inherit=True), scope)
    assert [task_of(scope[name]).context for name in "fghij"] == ["ctx"] * 5


def text(a: str, contexts: list[str]) -> None: ...


def test_other_annotations_are_no_context() -> None:
    assert task_of(text).context is None


FOR_TYPE_CHECKERS = """
from typing import TYPE_CHECKING, Annotated
from dbjobq import JobContext as Context, job
import dbjobq
if TYPE_CHECKING:
    from nowhere import JobContext, Thing
@job
def a(ctx: Context, n: Thing) -> Thing: ...
@job
async def b(n: list[Thing], ctx: "Context | None" = None) -> None: ...
@job
def c(n: int, ctx: JobContext) -> None: ...
@job
def d(n: Later, ctx: Context | Thing | None = None) -> "Later": ...
@job
def e(n: int, ctx: Annotated[dbjobq.JobContext, Thing]) -> None: ...
@job
def f(n: "dict[str, Thing]", *, ctx: "dbjobq.JobContext") -> None: ...
@job
def g(n: int, ctx: Context[Thing, Later]) -> None: ...
class Later: ...
"""


def test_annotations_that_only_type_checkers_can_read_do_no_harm() -> None:
    code = FOR_TYPE_CHECKERS
    if sys.version_info < (3, 14):  # where they are evaluated at once, unless one says
        code = "from __future__ import annotations" + code
    scope: dict[str, Any] = {"__name__": "for_type_checkers"}
    exec(compile(code, "x", "exec", dont_inherit=True), scope)
    tasks = [task_of(scope[name]) for name in "abcdefg"]
    assert [(task.context, task.parameters) for task in tasks] == [("ctx", ("n",))] * 7


# Other names.


def test_a_second_name_serves_jobs_that_wait_under_it_and_is_written_by_no_new_one() -> None:
    job(name="new")(plain)
    job(name="old", max_retries=0)(plain)
    assert task_of(plain).name == "new"
    assert (find("old").function, find("old").max_retries) == (plain, 0)


def test_the_name_given_to_a_function_counts_though_it_was_enqueued_before() -> None:
    before = task_of(plain).name
    job(name="given")(plain)
    assert task_of(plain).name == "given"
    assert find(before).function is plain


def test_a_function_registered_again_under_its_name_has_the_newest_options() -> None:
    job(name="mine")(plain)
    job(name="mine", priority=9)(plain)
    assert task_of(plain).priority == 9


@pytest.mark.parametrize("aliases", ["old.name", ("old.name", "older.name"), ["old.name", "new.name"]])
def test_aliases_serve_jobs_that_wait_under_them(aliases: Any) -> None:
    job(name="new.name", aliases=aliases)(plain)
    assert find("old.name") is find("new.name")
    assert task_of(plain).name == "new.name"


def test_an_alias_cannot_be_anothers_name() -> None:
    job(name="taken", aliases="taken.too")(plain)

    def other() -> None: ...

    for name in ("taken", "taken.too"):
        with pytest.raises(ValueError, match=rf"'{name}'.*plain"):
            job(name="other", aliases=[name])(other)
        with pytest.raises(ValueError, match=rf"'{name}'.*plain"):
            job(name=name)(other)
    with pytest.raises(UnknownJobType):
        find("other")


def test_a_module_with_aliases_may_be_loaded_again() -> None:
    scope: dict[str, Any] = {"__name__": "again", "job": job}
    for _ in range(2):
        exec("@job(aliases=['before'])\ndef now(): ...", scope)
    assert find("before").function is scope["now"]


@pytest.mark.parametrize(("aliases", "error"), [((1,), TypeError), (("",), ValueError), (7, TypeError)])
def test_aliases_are_names(aliases: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        job(aliases=aliases)(plain)


# Calls.


def everything(a: int, *rest: int, b: str = "x", **more: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "bound"),
    [
        (plain, (), {"a": 1}, {"a": 1}),
        (plain, (1,), {}, {"a": 1}),
        (plain, (1, "y"), {}, {"a": 1, "b": "y"}),
        (plain, (1,), {"b": "y"}, {"a": 1, "b": "y"}),
        (everything, (), {"a": 1, "z": 2}, {"a": 1, "z": 2}),
        (later, (1,), {}, {"a": 1}),
    ],
)
def test_a_call_is_bound_to_names(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any], bound: dict[str, Any]
) -> None:
    assert task_of(function).bind(arguments, keywords) == bound


@pytest.mark.parametrize(
    ("function", "arguments", "keywords", "says"),
    [
        (plain, (), {}, "missing 'a'"),
        (plain, (), {"b": "y"}, "missing 'a'"),
        (plain, (), {"a": 1, "c": 2}, "no argument 'c'"),
        (plain, (1, "y", 2), {}, "takes 2 arguments, got 3"),
        (plain, (1,), {"a": 2}, "'a' twice"),
        (later, (), {"a": 1, "ctx": None}, "'ctx'"),
        (maybe, (1, None), {}, "takes 1 arguments, got 2"),
        (everything, (), {}, "missing 'a'"),
        (everything, (1, 2, 3), {}, "takes 2 arguments, got 3"),
    ],
)
def test_a_call_that_does_not_fit_names_the_argument(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        task_of(function).bind(arguments, keywords)


# What a row may make a worker run.


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.run",
        "subprocess.Popen",
        "builtins.eval",
        "posix.system",
        "shutil.rmtree",
        "importlib.import_module",
        "shop.mail.rmtree",
        "shop.mail.run",
        "shop.mail.os_module.system",
        "shop.mail.subprocess_module.run",
        "shop.mail.os.system",
        "shop.mail.not_a_function",
        "shop.mail.Letters",
        "shop.mail.imported",
        "shop.mail.helpers.imported",
        "shop.helpers.imported",
        "shop.lazy.unregistered",
        "shop.mail.plain.__globals__",
        "shop.mail.renamed",
        "outsider.outside",
        "shop",
        "shop.",
        ".shop",
        "..",
        "shop..mail",
        "shop.mail.",
        "shop.no_such.f",
        "shopping.f",
        "\U0001f600",
        " ",
    ],
)
def test_a_name_that_registered_nothing_is_never_run(name: str) -> None:
    mail = importlib.import_module("shop.mail")
    before = set(sys.modules)
    if name == "shop.mail.renamed":
        registry.registered()  # it has a name of its own, but is defined there: that may be found or not
        return
    with pytest.raises(UnknownJobType) as caught:
        find(name, ["shop.mail"])
    assert caught.value.name == name
    assert repr(name) in str(caught.value)
    assert mail is sys.modules["shop.mail"]
    assert {m for m in set(sys.modules) - before if not m.startswith("shop.")} == set()


def test_the_error_says_where_it_was_looked_for_and_what_to_do() -> None:
    importlib.import_module("shop.mail")
    with pytest.raises(UnknownJobType, match=r"shop\.mail.*@job.*imports=") as caught:
        find("elsewhere.f", ["shop.mail"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UnknownJobType, match="none"):
        find("elsewhere.f")


def test_functions_defined_in_a_named_module_are_found() -> None:
    mail = importlib.import_module("shop.mail")
    assert find("shop.mail.plain", ["shop.mail"]).function is mail.plain
    assert find("shop.mail.Letters.send", ["shop.mail"]).function is mail.Letters.send
    assert find("custom-name").function is mail.renamed


def test_a_module_of_a_named_package_is_imported_and_must_register() -> None:
    importlib.import_module("shop")
    assert "shop.lazy" not in sys.modules
    assert find("shop.lazy.registered", ["shop"]).function() == "lazy"
    with pytest.raises(UnknownJobType):
        find("shop.lazy.unregistered", ["shop"])


def test_a_package_without_an_init_is_one() -> None:
    importlib.import_module("shop.spread")
    assert find("shop.spread.lazy.registered", ["shop.spread"]).function() == "lazy"


@pytest.mark.parametrize(
    "name",
    [
        "shop.lazy.registered",  # beside the named module, not below it
        "outsider.outside",
        "this.s",
        "antigravity.fly",
        "shop.mail.lazy.registered",
    ],
)
def test_a_module_that_is_not_below_a_named_package_is_not_imported(name: str) -> None:
    for named in ("shop.mail", "shop.spread"):
        importlib.import_module(named)
    before = set(sys.modules)
    with pytest.raises(UnknownJobType):
        find(name, ["shop.mail", "shop.spread"])
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "name",
    [
        "shop.__main__.f",
        "shop.__main__",
        "shop.__main__.__main__.f",
        "shop.__init__.f",
        "shop.__init__.__main__.f",
        "shop.spread.__main__.f",
        "shop.spread.__init__.lazy.registered",
        "shop.__pycache__.lazy.registered",
        "shop..lazy.registered",
        "shop...lazy.registered",
        "shop./lazy.registered",
        "shop.\uff4cazy.registered",  # what Python's parser, and some file systems, take for an l
        "shop.lazy\0.registered",
        "shop. lazy.registered",
        "shop.os.system",
        "shop.mail.os.system",
        "SHOP.lazy.registered",
    ],
    ids=ascii,
)
def test_what_is_no_plain_name_of_a_module_opens_nothing(name: str) -> None:
    """`shop/__main__.py` and `shop/spread/__main__.py` interrupt whoever imports them."""
    for named in ("shop", "shop.mail", "shop.spread"):
        importlib.import_module(named)
    before = set(sys.modules)
    with pytest.raises(UnknownJobType):
        find(name, ["shop"])
    assert set(sys.modules) == before


def test_what_is_loaded_is_not_imported_again() -> None:
    """Its import may have failed half-way elsewhere, or have taken the name away: it had its chance to register."""
    importlib.import_module("shop.mail")
    assert openable("shop.mail.nothing", ["shop"]) == []
    assert openable("shop.mail.Letters.nothing", ["shop"]) == []
    assert openable("shop.lazy.registered", ["shop"]) == ["shop.lazy"]
    assert openable("shop.lazy.Class.method", ["shop"]) == ["shop.lazy.Class", "shop.lazy"]


@pytest.mark.parametrize(
    ("module", "says"),
    [("broken", "the import broke"), ("missing", "no_such_module_anywhere"), ("leaving", "not on this machine")],
)
def test_an_import_that_fails_is_an_unknown_type_with_its_cause(module: str, says: str) -> None:
    importlib.import_module("shop")
    with pytest.raises(UnknownJobType, match=says) as caught:
        find(f"shop.{module}.f", ["shop"])
    assert caught.value.__cause__ is not None
    assert f"shop.{module}" in str(caught.value)


def test_functions_of_a_script_are_named_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "my_jobs.py"
    script.write_text("from dbjobq.jobs.registry import task_of\ndef f(): ...\nprint(task_of(f).name)")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "my_jobs.f\n"


# The context itself, and the package.


def test_progress_that_is_no_number_is_refused_where_it_is_said() -> None:
    said: list[str] = []
    context = JobContext(Job(id="1", type="t"), queue=None, on_progress=said.append)
    context.progress(1, 2, "half \ud800")
    with pytest.raises(TypeError):
        context.progress(object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"executor": "thread"}, "executor='thread': must be 'inline' or 'process'"),
        ({"executor": None}, "executor=None: must be 'inline' or 'process'"),
        ({"executor": "process", "transactional": True}, "transactional=True with executor='process'"),
    ],
)
def test_where_a_job_runs_is_one_of_two_and_goes_with_its_other_options(options: dict[str, Any], says: str) -> None:
    def never_registered() -> None: ...

    with pytest.raises(ValueError, match=re.escape(says)):
        job(**options)(never_registered)
    assert task_of(never_registered).executor == "inline"


def test_only_jobs_that_can_reach_their_queue_have_it() -> None:
    context = JobContext(Job(id="1", type="my.type"), queue=None)
    with pytest.raises(NotSupported, match=r"my\.type.*executor='process'"):
        _ = context.queue


def test_only_transactional_jobs_have_a_connection() -> None:
    context = JobContext(Job(id="1", type="my.type"), queue=None)
    with pytest.raises(NotSupported, match=r"my\.type.*transactional=True"):
        _ = context.connection


def test_importing_dbjobq_loads_neither_sqlalchemy_nor_alembic() -> None:
    heavy = "{'sqlalchemy', 'alembic', 'mako'}"
    script = f"import sys, dbjobq; print(sorted({{m.partition('.')[0] for m in sys.modules}} & {heavy}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    assert sorted(dbjobq.__all__) == sorted(set(dbjobq.__all__))
    assert all(hasattr(dbjobq, name) for name in dbjobq.__all__)
