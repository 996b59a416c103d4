"""docs/first-gpu-task.md, typed: from the wheel to a GPU task with an image of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalflow.demo.programs.ports import free_port
from modalflow.emulator.local import Address
from tests.support import descendants, is_running, wait_until
from tests.wheels import build_wheel, environment_with

PAGE = (Path(__file__).parents[2] / "docs" / "first-gpu-task.md").read_text()

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
        started = [*descendants(self._shell.pid), self._shell.pid]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in filter(is_running, started):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not any(map(is_running, started[:-1])), 20.0, "all of it to end")
        self._shell.communicate(timeout=60)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder, on a machine where nothing is configured. Ports are free ones, not the usual."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODAL", "AIRFLOW", "XDG_", "PYTHON", "VIRTUAL_ENV"))
    }
    port = free_port()
    kept |= {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join(
            folder for folder in kept["PATH"].split(os.pathsep) if not folder.startswith(sys.prefix)
        ),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    typed_into = Shell(tmp_path, kept)
    try:
        yield typed_into
    finally:
        # The page ends with it; a test that failed before has one left.
        typed_into.type("modalflow local stop || true")
        typed_into.close()


def write_files(folder: Path) -> None:
    """Write what the page tells to write."""
    files = re.findall(r"Write `([\w/.]+)`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in files} == {"worker.py", "dags/first_gpu.py"}
    for name, content in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def test_the_page_unsets_every_variable_of_the_local_control_plane() -> None:
    """One that stayed would keep `modal token new` and ~/.modal.toml without effect."""
    unset = {
        name
        for line in commands("Take it to modal.com")
        if line.startswith("unset ")
        for name in line.removeprefix("unset ").split()
    }
    assert unset == set(Address("http://127.0.0.1:1", "ak-1", "as-1", 1, "/state").variables({}))


def test_every_command_of_the_page(shell: Shell, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a user does with it, in the order of the page: the wheel, a GPU task in an image of its own, its log while
    it runs, and what it cost."""
    build, make, activate, install = commands("Install")
    assert build == 'make -C "$CHECKOUT" wheel' and make == "python3 -m venv .venv"
    assert install == 'pip install "$(ls "$CHECKOUT"/dist/modalflow-*.whl)[airflow]"'
    # The same by a faster installer: the wheel of this checkout, on the versions that were tested.
    wheel = build_wheel(tmp_path_factory.mktemp("sources"))
    environment_with(wheel, tmp_path / ".venv", extra="airflow")
    shell.type(activate)
    for line in commands("Start Modal on your machine"):
        shell.type(line)
    write_files(tmp_path)
    *settings, deploy, start, doctor = commands("Configure Airflow, deploy, start")
    for line in settings:
        shell.type(line)
    assert "Deployed modalflow" in shell.type(deploy)
    shell.type(start)
    log = tmp_path / "airflow.log"
    wait_until(
        lambda: log.exists() and "Airflow is ready" in log.read_text(), 120.0, f"Airflow, see {log}", interval=0.5
    )
    assert "all passed" in shell.type(doctor)
    unpause, trigger, logs, cost = commands("Run it")
    wait_until(lambda: "first_gpu" in shell.type("airflow dags list -o plain"), 60.0, "the DAG", interval=1.0)
    shell.type(unpause)
    shell.type(trigger)
    told = shell.type(logs)
    assert "hello from a machine without a GPU" in told and "This try has ended: success." in told
    assert "T4" in shell.type(cost)
    for line in commands("Take it to modal.com"):
        shell.type(line)
