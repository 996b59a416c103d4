"""How the demo ends, and how another shell uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from modalflow.cli.demo import demo
from modalflow.demo.programs.program import StackError
from modalflow.demo.run import ending_on_signals, write_variables
from modalflow.emulator.local import NoNetworkError


def test_a_second_signal_does_not_interrupt_the_end() -> None:
    """The first SIGTERM ends the demo; what follows while it cleans up has no effect, and then all is as before."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    cleaned_up = False
    with pytest.raises(SystemExit) as ended, ending_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            cleaned_up = True
    assert cleaned_up and ended.value.code == 128 + signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


@pytest.mark.parametrize(
    ("arguments", "tried"),
    [([], ["none", "host"]), (["--network", "none"], ["none"]), (["--network", "host"], ["host"])],
)
def test_the_containers_of_the_demo_have_no_network_where_that_is_possible(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], tried: list[str]
) -> None:
    """Without namespaces they share the machine's, and a line says why; what a user asks for is never replaced."""
    given: list[str] = []

    def stack(*_: Any, modal: Any, **__: Any) -> Any:
        given.append(modal.network)
        if modal.network == "none":
            raise NoNetworkError("this machine allows no namespaces")
        raise StackError("no stack in this test")

    monkeypatch.setattr("modalflow.demo.run.ModalStack", stack)
    ended = CliRunner().invoke(demo, arguments)
    assert ended.exit_code == 1 and given == tried
    assert ("this machine allows no namespaces" in ended.output) is ("none" in tried)


def test_another_shell_gets_the_variables_of_the_demo(tmp_path: Path) -> None:
    """A shell that reads the script has Airflow's and Modal's variables, whatever their values, and the commands; no
    other user can read it."""
    script = tmp_path / "variables.sh"
    value = """it's "$HOME"\nand `more`"""
    write_variables(script, {"MODAL_PROFILE": "", "AIRFLOW__CORE__X": value, "SECRET_OF_THE_SHELL": "x"})
    assert script.stat().st_mode & 0o777 == 0o600 and "SECRET_OF_THE_SHELL" not in script.read_text()
    shown = 'printf "%s|%s|%s" "$AIRFLOW__CORE__X" "${MODAL_PROFILE-unset}" "$PATH"'
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-c", f'. "$0"; {shown}', script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{value}||{Path(sys.executable).parent}:{os.environ['PATH']}"
