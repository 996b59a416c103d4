"""``modalflow local`` and LocalModal as a user meets them: as commands, with Modal's own CLI as the client."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from modalflow.emulator.local import LocalModal, StartError
from tests.command_line import CommandLine
from tests.support import is_running, wait_until

MODALFLOW = [sys.executable, "-m", "modalflow.cli"]
MODAL = [sys.executable, "-m", "modal"]
SECONDS = 60


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a state folder of its own and a user's Modal settings that must not matter."""
    folder = tmp_path_factory.mktemp("user")
    config = folder / "modal.toml"
    config.write_text('[live]\ntoken_id = "ak-user"\ntoken_secret = "as-user"\nenvironment = "users"\nactive = true\n')
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL", "XDG_"))}
    return {
        **kept,
        "XDG_STATE_HOME": str(folder / "state"),
        "MODAL_CONFIG_PATH": str(config),
        "MODAL_PROFILE": "live",
        "MODAL_ENVIRONMENT": "users",
    }


@dataclass(frozen=True)
class Local:
    """``modalflow local …``, as that user types it."""

    command_line: CommandLine
    environ: Mapping[str, str]

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it, expecting that exit code."""
        return _checked(self.command_line.run("local", *arguments, environ=self.environ), code)


@pytest.fixture(scope="module")
def modalflow(environ: dict[str, str]) -> Iterator[Local]:
    with CommandLine(environ, "modalflow local") as command_line:
        yield Local(command_line, environ)


@pytest.fixture(scope="module")
def started(modalflow: Local) -> Iterator[dict[str, str]]:
    """The variables that ``modalflow local env`` prints for the control plane named shared."""
    modalflow("start", "--name", "shared")
    yield json.loads(modalflow("env", "--json", "--name", "shared").stdout)
    modalflow("stop", "--name", "shared")


@pytest.fixture(scope="module")
def modal(environ: dict[str, str], started: dict[str, str]) -> Iterator[CommandLine]:
    """``modal …``, as that user types it after ``eval "$(modalflow local env)"``."""
    with CommandLine({**environ, **started}) as modal:
        yield modal


def names(modal: CommandLine, noun: str) -> list[str]:
    """What ``modal NOUN list`` names."""
    return [row["name"] for row in json.loads(modal(noun, "list", "--json"))]


def _checked(done: subprocess.CompletedProcess[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, f"{done.args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def test_a_control_plane_stays_until_it_is_stopped(modalflow: Local) -> None:
    """start leaves one running after the command ended, status finds it, stop ends it and status says so."""
    said = modalflow("start").stdout
    status = json.loads(modalflow("status", "--json").stdout)
    try:
        assert status["running"] and status["answers"] and status["url"] in said
        assert is_running(status["pid"])
        assert status["url"] in modalflow("status").stdout
    finally:
        modalflow("stop")
    assert not is_running(status["pid"])
    assert not Path(status["state_dir"]).exists()
    assert json.loads(modalflow("status", "--json", code=1).stdout) == {
        "name": "default",
        "running": False,
        "stale_pid": None,
    }
    assert "No local control plane" in modalflow("stop").stdout


def test_only_env_tells_the_secret(modalflow: Local, environ: dict[str, str], started: dict[str, str]) -> None:
    """The token secret is in no other output, no command line and no file that others may read."""
    secret = started["MODAL_TOKEN_SECRET"]
    status = json.loads(modalflow("status", "--json", "--name", "shared").stdout)
    command_line = Path(f"/proc/{status['pid']}/cmdline").read_bytes()
    assert secret not in modalflow("status", "--name", "shared").stdout + json.dumps(status)
    assert secret.encode() not in command_line
    for file in Path(environ["XDG_STATE_HOME"]).rglob("*"):
        if file.is_file() and secret in file.read_text():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_printed_variables_are_all_a_client_needs(environ: dict[str, str], modal: CommandLine) -> None:
    """After eval "$(modalflow local env)" Modal's CLI talks to the control plane, whatever the user's settings are."""
    variables = shlex.join([*MODALFLOW, "local", "env", "--name", "shared"])
    script = f'eval "$({variables})" && {shlex.join([*MODAL, "dict", "create", "made"])}'
    command = ["/bin/sh", "-c", script]
    _checked(subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS))
    assert names(modal, "dict") == ["made"]
    modal("dict", "delete", "made", "--yes")


def test_several_control_planes_have_names(modalflow: Local) -> None:
    """Names tell control planes apart; one name is started once."""
    modalflow("start", "--name", "one")
    try:
        modalflow("start", "--name", "two")
        try:
            urls = {json.loads(modalflow("status", "--json", "--name", name).stdout)["url"] for name in ("one", "two")}
            assert len(urls) == 2
            again = modalflow("start", "--name", "one", code=1)
            assert "is already running" in again.stderr and "--name" in again.stderr
        finally:
            modalflow("stop", "--name", "two")
    finally:
        modalflow("stop", "--name", "one")


def test_a_dead_control_plane_is_recognised(modalflow: Local) -> None:
    """After a kill -9, status and env say that it ended by itself; a new one can be started at once."""
    modalflow("start")
    pid = json.loads(modalflow("status", "--json").stdout)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), 10, "the control plane to be gone")

    assert f"pid {pid}" in modalflow("status", code=1).stdout
    refused = modalflow("env", code=1)
    assert "modalflow local start" in refused.stderr and not refused.stdout
    modalflow("start")
    modalflow("stop")


def test_run_gives_a_command_a_fresh_control_plane(modalflow: Local, environ: dict[str, str]) -> None:
    """CMD sees the variables, its exit code is the command's own, and nothing is left running after it."""
    code = "import os, sys; print(os.environ['MODAL_SERVER_URL'], os.environ['MODAL_PROFILE'] == ''); sys.exit(7)"
    done = modalflow("run", "--max-containers", "3", "--", sys.executable, "-c", code, code=7)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ True\n", done.stdout)
    url = done.stdout.split()[0]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)


def test_run_passes_signals_on(environ: dict[str, str], tmp_path: Path) -> None:
    """A SIGTERM reaches CMD, which ends as it wants to; run ends with its code and stops the control plane."""
    ready, answered = tmp_path / "ready", tmp_path / "answered"
    script = (
        "import os, pathlib, signal, sys\n"
        f"def end(*_): pathlib.Path({str(answered)!r}).write_text(os.environ['MODAL_SERVER_URL']); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: signal.pause()\n"
    )
    command = [*MODALFLOW, "local", "run", "--", sys.executable, "-c", script]
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL) as running:
        try:
            wait_until(ready.exists, SECONDS, "CMD to start")
            running.send_signal(signal.SIGTERM)
            assert running.wait(SECONDS) == 5
        finally:
            running.kill()
    assert answered.exists()


def test_run_refuses_what_it_cannot_run(modalflow: Local) -> None:
    """An unknown command is 127 at once; no command, or a wrong option, is a usage error."""
    assert "no-such-command" in modalflow("run", "--", "no-such-command", code=127).stderr
    assert "Missing argument" in modalflow("run", code=2).stderr
    assert "max_containers" in modalflow("start", "--max-containers", "0", code=2).stderr
    assert "loopback" in modalflow("start", "--host", "0.0.0.0", code=2).stderr


def test_a_port_that_is_taken_is_said(modalflow: Local, started: dict[str, str]) -> None:
    """A control plane that cannot start ends the command with what is in the way, and leaves no record."""
    port = started["MODAL_SERVER_URL"].rpartition(":")[2]
    failed = modalflow("start", "--name", "other", "--port", port, code=1)
    assert f"port {port} of 127.0.0.1 (Address already in use); stop the other program" in failed.stderr
    assert "other" in modalflow("status", "--name", "other", code=1).stdout
    with pytest.raises(StartError, match="in use"):
        LocalModal(port=int(port)).start()


def test_a_control_plane_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """A LocalModal whose program is killed does not stay behind."""
    script = (
        "import time\nfrom modalflow.emulator.local import LocalModal\n"
        "local = LocalModal().start()\nprint(local.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert is_running(pid)
        program.kill()
    wait_until(lambda: not is_running(pid), 10, "the control plane to follow")


def test_a_client_that_stays_connected_does_not_keep_a_control_plane() -> None:
    """It ends by itself as soon as it is told to, and takes its folder along."""
    local = LocalModal().start()
    where, pid, folder = urlsplit(local.url), local.pid, Path(local.address.state_dir)
    with socket.create_connection((where.hostname, where.port)) as client:
        # Its greeting: the server has this connection by now.
        assert client.recv(1)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), 10, "its end")
    assert not folder.exists()
    local.stop()


def test_what_a_killed_control_plane_leaves_goes_with_its_program() -> None:
    """LocalModal removes what it could no longer remove itself."""
    with LocalModal() as local:
        folder = Path(local.address.state_dir)
        os.kill(local.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(local.pid), 10, "its end")
        assert folder.exists()
    assert not folder.exists()


def test_modals_own_cli_manages_objects(modal: CommandLine) -> None:
    """modal dict, queue, secret, environment and volume create, list, read and delete on the control plane."""
    for noun in ("dict", "queue", "volume"):
        modal(noun, "create", f"my-{noun}")
        assert names(modal, noun) == [f"my-{noun}"]

    modal("secret", "create", "my-secret", "KEY=value")
    modal("secret", "create", "my-secret", "KEY=other", "--force")
    assert names(modal, "secret") == ["my-secret"]
    modal("environment", "create", "my-environment")
    assert sorted(names(modal, "environment")) == ["main", "my-environment"]
    modal("dict", "delete", "my-dict", "--yes")
    assert names(modal, "dict") == []


def test_modals_own_cli_moves_files(modal: CommandLine, tmp_path: Path) -> None:
    """modal volume put, ls, cp, get and rm do to a volume's files what they say."""
    (tmp_path / "file.txt").write_text("hello volume\n")
    modal("volume", "create", "files")
    modal("volume", "put", "files", str(tmp_path / "file.txt"), "/in/file.txt")
    modal("volume", "cp", "files", "in/file.txt", "copy.txt")
    modal("volume", "get", "files", "copy.txt", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text() == "hello volume\n"
    modal("volume", "rm", "files", "/in", "-r")
    listed = json.loads(modal("volume", "ls", "files", "--json"))
    assert [(row["filename"], row["type"]) for row in listed] == [("copy.txt", "file")]
