"""Waiting for a child that is about to end."""

from __future__ import annotations

import os
import subprocess
import time

from modalflow.worker.zygote import processes


def test_the_end_of_a_child_is_noticed_at_once_and_left_to_be_reaped() -> None:
    """A supervisor that waits for a task's process loses no time, and still learns how it ended."""
    with subprocess.Popen(["sh", "-c", "exec sleep 0.05"]) as child:
        began = time.monotonic()
        assert processes.ends_within(child.pid, 10.0)
        assert time.monotonic() - began < 5.0
        assert os.waitpid(child.pid, os.WNOHANG)[0] == child.pid
        assert processes.ends_within(child.pid, 0.0), "nothing is left to wait for"


def test_a_child_that_does_not_end_is_waited_for_no_longer_than_asked() -> None:
    """What a supervisor has to do meanwhile is not held up."""
    with subprocess.Popen(["sleep", "60"]) as child:
        began = time.monotonic()
        assert not processes.ends_within(child.pid, 0.03)
        assert 0.03 <= time.monotonic() - began < 5.0
        child.kill()
