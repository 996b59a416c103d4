"""The guard between the demo and what it starts: nothing survives the one who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modalflow.demo.programs.program import Program, StackError
from tests.support import is_running, wait_until

#: Ends on no signal but KILL, and has a child in a session of its own that does the same.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True)"
subprocess.Popen([sys.executable, "-c", code + "; time.sleep(300)"], start_new_session=True)
time.sleep(300)
"""


def make_program(folder: Path, *command: str, name: str = "thing") -> Program:
    """A program whose log is in ``folder``."""
    return Program(name, command, dict(os.environ), folder / f"{name}.log", cwd=folder)


def number_in(log: Path) -> int:
    """The number that a program has written to its log, once it is there."""
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    return int(log.read_text())


def test_stopping_ends_a_stubborn_program_and_its_detached_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ignores SIGTERM is killed after the grace, and so is what moved to a session of its own."""
    monkeypatch.setattr("modalflow.demo.programs.program.GRACE", 0.2)
    program = make_program(tmp_path, sys.executable, "-c", STUBBORN)
    program.start()
    child = number_in(program.log)
    pid = program.pid
    program.stop()
    assert not is_running(pid)
    assert not is_running(child)


def test_nothing_survives_kill_9_of_the_owner(tmp_path: Path) -> None:
    """When the one who started a program is killed, the program and all below it end as well."""
    owner_code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "import modalflow.demo.programs.program as p\n"
        "p.GRACE = 0.2\n"
        f"program = p.Program('thing', (sys.executable, '-c', {STUBBORN!r}), dict(os.environ),"
        " Path('thing.log').absolute(), cwd=Path.cwd())\n"
        "program.start()\n"
        "time.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], cwd=tmp_path)
    try:
        child = number_in(tmp_path / "thing.log")
        pid = int((tmp_path / "thing.pid").read_text())
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until(lambda: not (is_running(pid) or is_running(child)))


def test_killing_the_guard_takes_the_program_with_it(tmp_path: Path) -> None:
    """A program whose guard is killed does not run on unguarded."""
    program = make_program(tmp_path, sys.executable, "-c", "import time; time.sleep(300)")
    program.start()
    wait_until(program.pid_file.exists)
    pid = program.pid
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    program.stop()


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """A program that ends by itself takes its daemons along, and its exit code comes through."""
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "sys.exit(3)\n"
    )
    program = make_program(tmp_path, sys.executable, "-c", code)
    program.start()
    wait_until(lambda: program.exit_code() is not None)
    assert program.exit_code() == 3
    assert not is_running(number_in(program.log))


def test_a_failing_program_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error names the program, how it ended and what it last said."""
    program = make_program(tmp_path, "sh", "-c", "echo out of cheese; exit 7", name="migrate")
    with pytest.raises(StackError, match=r"(?s)migrate failed \(exit code 7\).*migrate\.log.*out of cheese"):
        program.run(timeout=10)


def test_a_program_that_hangs_is_ended_and_reported(tmp_path: Path) -> None:
    """A time limit ends the program, not only the wait."""
    program = make_program(tmp_path, "sh", "-c", "echo waiting for Godot; exec sleep 300", name="migrate")
    program.start()
    wait_until(lambda: "Godot" in program.tail(), what="its first line")
    with pytest.raises(StackError, match=r"(?s)migrate did not end in 0 s.*Godot"):
        program.wait(timeout=0.1)
    assert not is_running(program.pid)


def test_a_missing_program_says_so(tmp_path: Path) -> None:
    """A command that is not there is an error with its name."""
    program = make_program(tmp_path, "no-such-command-anywhere")
    with pytest.raises(StackError, match=r"(?s)exit code 127.*no-such-command-anywhere: No such file"):
        program.run(timeout=10)


def test_a_killed_program_is_started_again_while_it_may(tmp_path: Path) -> None:
    """SIGKILL from outside means a new start, until the restarts are used up; then it is an error."""
    program = make_program(tmp_path, "sleep", "300", name="scheduler")
    program.restarts = 1
    program.start()
    first = number_in(program.pid_file)
    assert program.check() is None
    os.kill(first, signal.SIGKILL)
    assert wait_until(program.check) == "scheduler was killed; started again"
    assert program.check() is None
    os.kill(program.pid, signal.SIGKILL)
    wait_until(lambda: program.exit_code() is not None)
    with pytest.raises(StackError, match=r"scheduler ended \(killed by SIGKILL\)"):
        program.check()


def test_a_program_that_fails_by_itself_is_not_started_again(tmp_path: Path) -> None:
    """A wrong configuration stays wrong: it is reported at once."""
    program = make_program(tmp_path, "sh", "-c", "echo bad setting; exit 1", name="triggerer")
    program.restarts = 3
    program.start()
    wait_until(lambda: program.exit_code() is not None)
    with pytest.raises(StackError, match=r"(?s)triggerer ended \(exit code 1\).*bad setting"):
        program.check()
