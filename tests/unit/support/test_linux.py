"""Processes: their families, their ends, and what is read of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modalflow.support import linux
from tests.support import wait_until


def test_the_end_of_a_child_is_noticed_at_once_and_left_to_be_reaped() -> None:
    """A supervisor that waits for a task's process loses no time, and still learns how it ended."""
    with subprocess.Popen(["sh", "-c", "exec sleep 0.05"]) as child:
        began = time.monotonic()
        assert linux.ends_within(child.pid, 10.0)
        assert time.monotonic() - began < 5.0
        assert os.waitpid(child.pid, os.WNOHANG)[0] == child.pid
        assert linux.ends_within(child.pid, 0.0), "nothing is left to wait for"


def test_a_child_that_does_not_end_is_waited_for_no_longer_than_asked() -> None:
    """What a supervisor has to do meanwhile is not held up."""
    with subprocess.Popen(["sleep", "60"]) as child:
        began = time.monotonic()
        assert not linux.ends_within(child.pid, 0.03)
        assert 0.03 <= time.monotonic() - began < 5.0
        child.kill()


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A shell, and a grandchild of this process in a session of its own; (the shell, the grandchild)."""
    script = "setsid sleep 300 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        try:
            # The shell prints the number before setsid is executed.
            wait_until(lambda: (read := linux.read(grandchild)) is not None and read.session == grandchild)
            yield shell.pid, grandchild
        finally:
            linux.send(grandchild, signal.SIGKILL)
            shell.kill()


def test_processes_that_end_while_they_are_read_have_no_part_in_a_family() -> None:
    """gVisor shows one that was just reaped with PID 0, the parent of the first process: a circle of descendants."""
    tables, uses = [], []
    for _ in range(200):
        with subprocess.Popen(["true"]) as child:
            reaper = threading.Thread(target=child.wait)
            reaper.start()
            while reaper.is_alive():
                tables.append(linux.table())
                uses.append(linux.use_of_family(os.getpid()))
            reaper.join()
    assert all(os.getpid() in table and 0 not in table for table in tables)
    assert all(uses)


def test_a_circle_of_parents_is_passed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files read one after another may tell of two processes with one PID."""
    stats = {pid: (pid, [b"R", parent, *[b"1"] * 20]) for pid, parent in ((1, b"0"), (2, b"3"), (3, b"2"))}
    monkeypatch.setattr(os, "listdir", lambda _: [str(pid) for pid in stats])
    monkeypatch.setattr(linux, "_stat", lambda pid: stats[int(pid)])
    use = linux.use_of_family(2)
    assert use is not None and use.cpu_seconds * os.sysconf("SC_CLK_TCK") == 8


def test_descendants_are_found_across_sessions(family: tuple[int, int]) -> None:
    """A grandchild in a session of its own still counts, in the list of children and in the process table."""
    shell, grandchild = family
    wait_until(lambda: grandchild in linux.family(os.getpid()))
    assert linux.family(shell)[0] == shell and grandchild in linux.children(shell)
    process = linux.table()[grandchild]
    assert (process.parent, process.is_zombie) == (shell, False)
    assert process == linux.read(grandchild)


def test_a_family_is_killed_across_sessions(family: tuple[int, int]) -> None:
    """Whatever session a descendant moved to, it ends with the root; signals to what is gone do nothing."""
    shell, grandchild = family
    wait_until(lambda: grandchild in linux.children(shell))
    linux.kill_family([shell])
    wait_until(lambda: not linux.is_running(shell) and not linux.is_running(grandchild))
    linux.send_to_group(shell, signal.SIGKILL)


def test_a_name_with_parentheses_and_blanks_is_read(tmp_path: Path) -> None:
    """The name of a program is free text, and the fields behind it are still found."""
    program = tmp_path / "a) b (c"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        wait_until(lambda: b"sleep" not in Path(f"/proc/{child.pid}/stat").read_bytes())
        process = linux.read(child.pid)
        assert process is not None and process.parent == os.getpid() and process.started > 0
        child.kill()
    assert linux.read(child.pid) is None and not linux.is_running(child.pid)


def test_processes_are_found_by_a_variable() -> None:
    """By its whole value, among those whose variables this process may read."""
    name = "MODALFLOW_TEST_LINUX"
    with subprocess.Popen(["sleep", "60"], env=os.environ | {name: "one"}) as child:
        wait_until(lambda: linux.with_variable(name, "one") == [child.pid])
        assert not linux.with_variable(name, "on")
        child.kill()


#: Starts two children that end, and prints how they were collected.
COLLECT = """
import os, sys, time
from modalflow.support import linux
assert not linux.has_children()
first = os.fork() or os._exit(3)
second = os.fork() or os.kill(os.getpid(), 9)
found = {}
while len(found) < 2:
    found |= {ended.pid: ended.code for ended in linux.reaped()}
    time.sleep(0.001)
assert found == {first: 3, second: -9} and not linux.has_children() and not list(linux.reaped())
print(linux.describe_exit(3), linux.describe_exit(-9), linux.describe_exit(-99), sep="; ")
"""


def test_what_has_ended_is_collected_with_its_code() -> None:
    """Each once; without children there is nothing to collect."""
    done = subprocess.run([sys.executable, "-c", COLLECT], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "exit code 3; signal 9 (SIGKILL); signal 99 (unknown)", done.stderr


#: Adopts the child of a child that ends, which then dies with this one.
ADOPT = """
import os, sys, time
from modalflow.support import linux
linux.adopt_orphans()
us = os.getpid()
if not os.fork():
    if os.fork():
        os._exit(0)
    while os.getppid() != us:
        time.sleep(0.001)
    linux.die_with(us)
    print(os.getpid(), flush=True)
    time.sleep(300)
sys.stdin.read()
os.kill(us, 9)
"""


def test_an_orphan_is_adopted_and_dies_with_its_new_parent() -> None:
    """A process that asked for orphans gets them; one that asked to die with its parent does."""
    command = [sys.executable, "-c", ADOPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        orphan = int(parent.stdout.readline())
        found = linux.read(orphan)
        assert found is not None and found.parent == parent.pid
        parent.stdin.close()
        parent.wait()
    wait_until(lambda: not linux.is_running(orphan))


#: Leaves small blocks between large ones, as a process that does several things at once.
_MANY_LARGE_BLOCKS = """
from pathlib import Path
from modalflow.support import linux
small = []
for size in (600_000, 5_000_000, 600_000):
    large = []
    for _ in range(40):
        large.append(b"x" * size)
        small.append(bytes(1000))
    del large
linux.return_freed_memory()
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
"""


def test_a_process_that_had_large_blocks_is_small_again() -> None:
    """Otherwise a relay would stay as large as it was with many large answers."""
    done = subprocess.run([sys.executable, "-c", _MANY_LARGE_BLOCKS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000
