"""``modalflow demo`` as a command, when something goes wrong underneath it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import descendants, wait_until

pytestmark = pytest.mark.timeout(240)

#: The command, its Airflow imported once.
DEMO = """
import functools

from modalflow.cli import main
from modalflow.demo import run
from tests.forked_stack import Forks

with Forks() as forks:
    run.ModalStack = functools.partial(run.ModalStack, make_program=forks.make_program)
    main(["demo"])
"""


def test_the_demo_ends_and_says_so_when_its_control_plane_is_killed(tmp_path: Path) -> None:
    """It does not wait for its time limit, names what happened, and leaves nothing but the logs of its processes."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        demo = subprocess.Popen([sys.executable, "-c", DEMO], stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: demo.poll() is not None or "queued" in output.read_text(), 120.0, "the first task")
        (control_plane,) = (pid for pid, command in descendants(demo.pid).items() if "-m modalflow.emulator" in command)
        os.kill(control_plane, signal.SIGKILL)
        assert demo.wait(100.0) == 1
    finally:
        demo.terminate()
        demo.wait(30.0)
    said = output.read_text()
    assert "the local control plane has ended (killed by SIGKILL)" in said, said
    assert "✗ the local control plane ended during the run" in said, said
    (logs,) = re.findall(r"the logs of every process stay until the next demo: (\S+)", said)
    folder = Path(logs).parent
    assert {path.name for path in folder.iterdir()} == {".lock", "logs"}
    assert (folder / "logs" / "scheduler.log").read_text()
    shutil.rmtree(folder)
