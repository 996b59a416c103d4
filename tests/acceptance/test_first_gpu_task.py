"""docs/first-gpu-task.md, typed: from the wheel to a GPU task with an image of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modalflow.demo.airflow_api import AirflowAPI
from modalflow.demo.calls import containers_of
from modalflow.demo.metadata import Metadata
from modalflow.demo.modal_stack import MODAL_EXECUTOR
from modalflow.demo.programs.ports import free_port
from modalflow.demo.report import Row, problems
from modalflow.emulator.local import Address
from tests.acceptance.airflow_on_modal import ENDED
from tests.support import descendants, is_running, wait_until
from tests.wheels import build_wheel, environment_with

PAGE = (Path(__file__).parents[2] / "docs" / "first-gpu-task.md").read_text()
DAGS = Path(__file__).parent / "dags"

pytestmark = pytest.mark.timeout(400)


def chapter(title: str) -> str:
    """The text of a chapter."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def commands(title: str) -> list[str]:
    """The command lines of a chapter."""
    return re.findall(r"^\$ (.+)$", chapter(title), re.MULTILINE)


class Shell:
    """A shell that somebody types into, line by line; it keeps what was set."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str) -> str:
        """Type a line; what it printed. It must succeed."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f'{line}\necho "ended with $?"\n')
        self._shell.stdin.flush()
        said = []
        for printed in self._shell.stdout:
            if ended := re.fullmatch(r"(.*)ended with (\d+)\n", printed, re.DOTALL):
                said.append(ended[1])
                assert ended[2] == "0", f"$ {line}\n{''.join(said)}"
                return "".join(said)
            said.append(printed)
        raise AssertionError(f"the shell ended at {line}:\n{''.join(said)}")

    def close(self) -> None:
        """End it, and what was started in it."""
        started: set[int] = set()
        # A list that is made while processes start and end may lack some, and orphans are in none.
        while not (found := {*descendants(self._shell.pid), self._shell.pid}) <= started:
            started |= found
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in filter(is_running, started):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not any(map(is_running, started)), 20.0, "all of it to end")
        self._shell.communicate(timeout=60)


@dataclass(frozen=True)
class Page:
    """The page, typed until Airflow is ready."""

    shell: Shell
    api: AirflowAPI
    metadata: Metadata
    log: Path
    modal_env: Mapping[str, str]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A shell in an empty folder, on a machine where nothing is configured, and what the page starts in it.

    Ports are free ones, not the usual, and the API asks for no password.
    """
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    shell = Shell(folder, _environment(folder, port))
    try:
        _type_until_ready(shell, folder, tmp_path_factory.mktemp("sources"))
        modal_env = dict(line.split("=", 1) for line in shell.type("env").splitlines() if line.startswith("MODAL_"))
        api = AirflowAPI(f"http://127.0.0.1:{port}")
        yield Page(shell, api, Metadata(f"sqlite:///{folder}/airflow/airflow.db"), folder / "airflow.log", modal_env)
        api.close()
    finally:
        # The page ends with it; a test that failed before has one left.
        shell.type("modalflow local stop || true")
        shell.close()


def _environment(folder: Path, port: int) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODAL", "AIRFLOW", "XDG_", "PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {
        "HOME": str(folder),
        "PATH": os.pathsep.join(
            folder for folder in kept["PATH"].split(os.pathsep) if not folder.startswith(sys.prefix)
        ),
        "XDG_STATE_HOME": str(folder / "state"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _type_until_ready(shell: Shell, folder: Path, sources: Path) -> None:
    build, make, activate, install = commands("Install")
    assert build == 'make -C "$CHECKOUT" wheel' and make == "python3 -m venv .venv"
    assert install == 'pip install "$(ls "$CHECKOUT"/dist/modalflow-*.whl)[airflow]"'
    # The same by a faster installer: the wheel of this checkout, on the versions that were tested.
    environment_with(build_wheel(sources), folder / ".venv", extra="airflow")
    shell.type(activate)
    for line in commands("Start Modal on your machine"):
        shell.type(line)
    write_files(folder)
    *settings, deploy, start, _ = commands("Configure Airflow, deploy, start")
    assert f"export AIRFLOW__CORE__EXECUTOR={MODAL_EXECUTOR}" in settings
    for line in settings:
        shell.type(line)
    assert "Deployed modalflow" in shell.type(deploy)
    shell.type(start)
    log = folder / "airflow.log"
    wait_until(
        lambda: log.exists() and "Airflow is ready" in log.read_text(), 120.0, f"Airflow, see {log}", interval=0.5
    )


def write_files(folder: Path) -> None:
    """Write what the page tells to write, and another DAG."""
    files = re.findall(r"Write `([\w/.]+)`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in files} == {"worker.py", "dags/first_gpu.py"}
    for name, content in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    shutil.copy(DAGS / "simple.py", folder / "dags")


def test_the_page_unsets_every_variable_of_the_local_control_plane() -> None:
    """One that stayed would keep `modal token new` and ~/.modal.toml without effect."""
    unset = {
        name
        for line in commands("Take it to modal.com")
        if line.startswith("unset ")
        for name in line.removeprefix("unset ").split()
    }
    assert unset == set(Address("http://127.0.0.1:1", "ak-1", "as-1", 1, "/state").variables({}))


def test_every_command_of_the_page(page: Page) -> None:
    """What a user does with it, in the order of the page: the wheel, a GPU task in an image of its own, its log while
    it runs, and what it cost."""
    shell = page.shell
    *_, doctor = commands("Configure Airflow, deploy, start")
    assert "all passed" in shell.type(doctor)
    unpause, trigger, logs, cost = commands("Run it")
    wait_until(lambda: page.api.dag_is_known("first_gpu"), 60.0, "the DAG", interval=0.2)
    shell.type(unpause)
    shell.type(trigger)
    told = shell.type(logs)
    assert "hello from a machine without a GPU" in told and "This try has ended: success." in told
    assert "T4" in shell.type(cost)


def test_a_simple_dag_succeeds_in_a_modal_container(page: Page) -> None:
    """``airflow standalone`` with nothing but the executor's class path: triggered through the API that the UI reads,
    a DAG ends as a success there, and Modal confirms where it ran."""
    api = page.api
    wait_until(lambda: api.dag_is_known("hello"), 60.0, "the DAG", interval=0.2)
    api.unpause("hello")
    run_id = api.trigger("hello", datetime(2026, 1, 2, tzinfo=UTC))
    wait_until(lambda: api.run_state("hello", run_id) in ENDED, 120.0, "the end of the run", interval=0.2)
    (instance,) = api.task_instances("hello", run_id)
    assert (api.run_state("hello", run_id), instance.state) == ("success", "success")
    (call,) = page.metadata.function_call_ids("hello", run_id).values()
    assert problems([Row(instance, call, containers_of([call], page.modal_env)[call])]) == []
    log = api.log("hello", run_id, instance)
    assert any("hello from a task" in line for line in log), "\n".join(log)


def test_standalone_did_not_replace_the_executor(page: Page) -> None:
    """Airflow's command would say so; it replaces every executor that is not local."""
    log = page.log.read_text()
    assert "Airflow is ready" in log
    assert "Forcing executor" not in log


def test_the_page_leaves_the_local_control_plane_behind(page: Page) -> None:
    """Its last commands end the control plane and unset what points to it. The last test of this Airflow."""
    for line in commands("Take it to modal.com"):
        page.shell.type(line)
    assert not [line for line in page.shell.type("env").splitlines() if line.startswith("MODAL_")]
