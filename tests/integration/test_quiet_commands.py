"""What libraries log, print and warn of is not in a command's output; errors are on standard error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import click
import pytest

from modalflow.cli import COMMANDS, main
from modalflow.cli.in_airflow import COMMANDS as IN_AIRFLOW
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.emulator.local import LocalModal
from tests.command_line import CommandLine

#: What Airflow imports when it sets its logging up. Everything that a library can do to a command's output.
NOISY = """
import logging, os, sys, threading, time, warnings
from modalflow.airflow_logging import LOGGING_CONFIG, REMOTE_TASK_LOG
try:
    import structlog
except ImportError:
    structlog = None

print("NOISE printed at import")
print("NOISE printed to standard error at import", file=sys.stderr)
out = sys.stdout
was_loud = threading.Event()

def later():
    while True:
        warnings.warn("NOISE warning", DeprecationWarning)
        for name in ("airflow.providers.noisy", "airflow.task", "opentelemetry.sdk"):
            logging.getLogger(name).info("NOISE info")
            logging.getLogger(name).warning("NOISE warning")
        logging.getLogger("opentelemetry.exporter").error("NOISE of an exporter")
        if structlog is not None:
            structlog.get_logger("noisy").warning("NOISE of structlog")
        out.write("LOUD on the standard output that it found\\n")
        out.flush()
        os.write(1, b"LOUD on the descriptor\\n")
        logging.getLogger("airflow.providers.noisy").error("LOUD and an error")
        was_loud.set()
        time.sleep(0.01)

threading.Thread(target=later, daemon=True).start()
was_loud.wait(60)
"""

#: Those of the commands that Airflow has too, in this order.
ARGUMENTS = {
    "deploy": ("--dags-source", "volume"),
    "sync": ("--dry-run",),
    "doctor": ("--app", "nobody"),
    "status": (),
    "cost": (),
    "advise": (),
    "logs": ("dag", "task"),
    "cancel": ("dag", "task", "run", "--yes"),
    "profile list": (),
    "render": ("dag", "task"),
    "replay": ("dag", "task", "run", "--yes"),
    "migrate": ("no-such-folder",),
}
WITH_JSON = ("deploy", "sync", "doctor", "status", "cost", "advise", "profile list")
#: What starts other programs, and a service, whose output is its log.
OTHERS = {"demo", "local", "relay"}


@pytest.fixture(scope="module")
def env(modalflow_cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A control plane with a deployed worker, and an Airflow that is noisy."""
    folder = tmp_path_factory.mktemp("noisy")
    (folder / "dags").mkdir()
    (folder / "dags" / "d.py").write_text("x = 1")
    (folder / "noisy_logging.py").write_text(NOISY)
    with LocalModal() as local:
        quiet = {
            **os.environ,
            **local.env,
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:1/execution/",
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "PYTHONPATH": str(folder),
        }
        deployed = modalflow_cli.run("deploy", *ARGUMENTS["deploy"], environ=quiet)
        assert deployed.returncode == 0, deployed.stderr
        yield {**quiet, "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "noisy_logging.LOGGING_CONFIG"}


@pytest.fixture(scope="module")
def modalflow(env: Mapping[str, str]) -> Iterator[CommandLine]:
    with CommandLine(env, "modalflow from its start") as command_line:
        yield command_line


def run(modalflow: CommandLine, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command; what is a library's own business is not in its output."""
    done = modalflow.run(*arguments)
    assert "NOISE" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "LOUD" not in done.stdout, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_commands_output_is_its_own(modalflow: CommandLine, name: str) -> None:
    """Whatever a library does, nothing of it is on standard output, where JSON can be read; errors alone, and what it
    writes to a descriptor itself, are on standard error."""
    arguments = ("--dry-run",) if name == "deploy" else ARGUMENTS[name]
    if name in WITH_JSON:
        done = run(modalflow, *name.split(), *arguments, "--json")
        assert isinstance(json.loads(done.stdout), dict)
        assert "LOUD and an error" in done.stderr
    else:
        done = run(modalflow, name, *arguments)
        assert any(line.startswith("Error: ") for line in done.stderr.splitlines())


def test_every_command_is_one_of_them() -> None:
    """A new command has its place in this test, and is quiet."""
    names = {name.split()[0] for name in ARGUMENTS}
    assert set(COMMANDS) == names | OTHERS
    assert {str(command.name) for command in IN_AIRFLOW} == names
    context = click.Context(main)
    for name in names:
        command = main.get_command(context, name)
        below = command.commands.values() if isinstance(command, click.Group) else [command]
        assert all(isinstance(each, QuietCommand) for each in below), name


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        (("status",), ">&-"),
        (("status",), "2>&-"),
        (("status",), "<&- >&- 2>&-"),
        (("status", "--json"), "2>&-"),
        (("status", "--json"), ">&- 2>&-"),
    ],
)
def test_an_output_that_is_closed_is_no_error(env: Mapping[str, str], closed: str, arguments: tuple[str, ...]) -> None:
    """A job scheduler may start a command without outputs; its exit code is all that it reads then."""
    script = f'"$@" {closed}'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "modalflow.cli", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("modalflow-logs" in done.stdout or "Executors" in done.stdout or "executors" in done.stdout) == (
        closed == "2>&-"
    )
    assert "Traceback" not in done.stderr
