"""Faults that an Airflow does not recover from while its control plane stays away."""

from __future__ import annotations

import os
import signal

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, wait_at_gate
from tests.support import descendants, is_running, wait_until

pytestmark = pytest.mark.timeout(300)


def test_a_task_fails_when_the_control_plane_goes_away(doomed_stack: ModalStack) -> None:
    """Nobody is left to ask, its container is gone as well: the task fails, and does not hang."""
    run_id = start_run(doomed_stack, "gate_once", gate="control_plane_killed")
    wait_at_gate(doomed_stack, "gate_once", run_id)
    containers = descendants(doomed_stack.local.pid)
    assert any("airflow" in command for command in containers.values())
    os.kill(doomed_stack.local.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, containers)), 20.0, "the end of the containers")
    assert finish_run(doomed_stack, "gate_once", run_id, timeout=200.0) == "failed"
    doomed_stack.airflow.check()
