from __future__ import annotations

import re
import subprocess
import sys

import pytest

import dbjobq
from tests.cli.support import invoke

COMMANDS = [
    "migrate",
    "worker",
    "enqueue",
    "jobs list",
    "jobs show",
    "jobs retry",
    "jobs cancel",
    "stats",
    "doctor",
    "grant",
    "demo",
    "bench",
]
NOWHERE = "host=/nonexistent dbname=x"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str) -> None:
    result = invoke(None, *command.split(), "--help")
    assert result.exit_code == 0
    assert f"Usage: main {command}".strip() in result.stdout


@pytest.mark.parametrize("command", ["", "jobs", *COMMANDS])
def test_help_fits_a_terminal_and_is_cut_nowhere(command: str) -> None:
    said = invoke(None, *command.split(), "--help").stdout
    assert max(map(len, said.splitlines())) <= 80
    assert not any(line.endswith("...") for line in said.splitlines()[1:])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_says_which_variables_count(command: str) -> None:
    said = invoke(None, *command.split(), "--help").stdout
    assert "\n    dbjobq " in said
    assert {"DBJOBQ_DSN", "DATABASE_URL", "DBJOBQ_LISTEN_DSN"} <= set(re.findall(r"[A-Z_]{5,}", said))


@pytest.mark.parametrize(
    "command", ["", "migrate", "worker", "jobs show", "jobs retry", "jobs cancel", "doctor", "demo"]
)
def test_help_says_what_an_exit_code_means(command: str) -> None:
    assert re.search(r"[Ee]xit codes?\b", invoke(None, *command.split(), "--help").stdout)


def test_it_tells_its_version() -> None:
    assert invoke(None, "--version").stdout == f"dbjobq {dbjobq.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "migrate",
        "migrate --check",
        "stats",
        "jobs list",
        "jobs show x",
        "jobs cancel x",
        "enqueue x",
        "doctor",
        "grant --role x --as reader",
        "demo",
        "bench",
    ],
)
def test_a_server_that_is_not_there_is_one_line(command: str) -> None:
    result = invoke(NOWHERE, *command.split())
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("Error: PostgreSQL did not answer")
    assert "Traceback" not in result.stderr


def test_a_dsn_that_cannot_be_read_is_one_line() -> None:
    result = invoke(None, "stats", "--dsn", "nonsense")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the DSN cannot be read")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "stats",
        "jobs list",
        "jobs retry --all-failed",
        "enqueue x",
        "migrate --check",
        "grant --role postgres --as worker",
    ],
)
def test_missing_tables_are_one_line_that_says_what_to_do(empty_dsn: str, command: str) -> None:
    result = invoke(empty_dsn, *command.split())
    assert result.exit_code == 1
    assert "dbjobq migrate" in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_loads_nothing_that_only_some_commands_need() -> None:
    code = (
        "import sys\n"
        "from dbjobq.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'alembic', 'sqlalchemy', 'rich', 'watchfiles', 'uvloop', 'dbjobq.embedded'}\n"
        "heavy |= {'dbjobq.bench', 'dbjobq.demo', 'dbjobq.rig'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "command"), [("rich", "demo"), ("rich", "bench"), ("watchfiles", "worker tasks --reload")]
)
def test_a_missing_extra_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, module: str, command: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("dbjobq.cli.commands.worker.log_to_stderr", lambda *_args, **_options: None)  # pyright: ignore[reportUnknownArgumentType,reportUnknownLambdaType]
    result = invoke(None, *command.split())
    assert result.exit_code == 1
    assert "pip install 'dbjobq[" in result.stderr
    assert result.stderr.count("\n") == 1


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "dbjobq", "--help"], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: dbjobq ")
