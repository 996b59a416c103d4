"""What an operator types beside a real Airflow: doctor, status, logs --follow, cancel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, the_task, wait_at_gate
from tests.acceptance.dag_sources import GIT, HAS_GIT, Sources
from tests.command_line import CommandLine
from tests.support import wait_until

MODALFLOW = (sys.executable, "-m", "modalflow.cli")
IN_AIRFLOW = (sys.executable, "-m", "airflow", "modalflow")


def run(stack: ModalStack, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the environment of the stack's Airflow."""
    return subprocess.run(command, env=os.environ | stack.airflow.env, capture_output=True, text=True, timeout=110)


@contextmanager
def following(stack: ModalStack, folder: Path, *what: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`modalflow logs --follow`, and the file that it writes to."""
    told = folder / "told.txt"
    with told.open("w") as file:
        command = [*MODALFLOW, "logs", *what, "--follow"]
        process = subprocess.Popen(command, env=os.environ | stack.airflow.env, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process, told
    finally:
        process.kill()
        process.wait()


def test_doctor_finds_a_real_airflow_well(stack: ModalStack, sources: Sources) -> None:
    """In Airflow's own command line; the container reached the real Execution API, and read the DAGs."""
    sources.ship(stack)
    # The scheduler starts the relay after itself.
    wait_until(lambda: json.loads(run(stack, *MODALFLOW, "status", "--json").stdout)["relays"], 60.0, "a relay")
    done = run(stack, *IN_AIRFLOW, "doctor", "--json")
    # Airflow's own command line may log to standard output before it gets as far as a command.
    told = json.loads("{" + done.stdout.partition("\n{")[2] if done.stdout[:1] != "{" else done.stdout)
    failed = [finding for finding in told["findings"] if finding["status"] == "fail"]
    assert done.returncode == 0 and told["ok"] and not failed, failed
    # The doctor has no task's token, with which a container could ask for the repository's connection.
    not_well = {finding["name"]: finding["status"] for finding in told["findings"] if finding["status"] != "ok"}
    # A busy machine is slow.
    not_well.pop("relay", None)
    assert not_well == ({f"DAG bundle {GIT}": "skip"} if HAS_GIT else {})
    findings = {finding["name"]: finding for finding in told["findings"]}
    assert stack.airflow.execution_api_url in findings["execution API"]["detail"]
    for name in (
        "task token",
        "task token in the container",
        "executor's settings",
        "executor's options",
        "settings",
        "providers",
        "packages",
        "API server",
        "API server's modalflow",
    ):
        assert findings[name]["status"] == "ok", findings[name]
    assert "Python files in /opt/modalflow/bundles" in findings["DAG bundle modalflow-demo"]["detail"]


def test_a_task_is_seen_followed_and_ended_by_hand(stack: ModalStack, modalflow: CommandLine, tmp_path: Path) -> None:
    """Two tasks at their gates: status has both, one's log is followed to its end, the other ends by hand, and the
    reason stands in Airflow's audit log and in the task's log."""
    runs = [start_run(stack, "gate_once", gate=f"operated {n}") for n in range(2)]
    for run_id in runs:
        wait_at_gate(stack, "gate_once", run_id)
    told: dict[str, Any] = json.loads(modalflow("status", "--json"))
    work = {each["label"]: each for each in told["work"]}
    for run_id in runs:
        row = work[f"gate_once.pass_gate run {run_id} try 1"]
        assert row["state"] == "running" and row["executor"]
        assert row["container_id"] == the_task(stack, "gate_once", run_id).hostname
    with following(stack, tmp_path, "gate_once", "pass_gate", runs[0]) as (process, file):
        wait_until(lambda: "waiting at operated 0" in file.read_text(), 60.0, "the log so far")
        stack.airflow.api.set_variable("operated 0", "open")
        wait_until(lambda: process.poll() is not None, 60.0, "the end of the log")
        lines = file.read_text().splitlines()
    assert sum("through operated 0" in line for line in lines) == 1
    assert lines[-1] == "This try has ended: success."
    done = modalflow.run("cancel", "gate_once", "pass_gate", runs[1], "--yes")
    assert done.returncode == 0 and "ended after " in done.stdout, done.stdout + done.stderr
    assert finish_run(stack, "gate_once", runs[1]) == "failed"
    api = stack.airflow.api
    wait_until(lambda: any("with modalflow cancel" in line for line in api.troubles("gate_once", runs[1])), 30.0)
    log = api.log("gate_once", runs[1], the_task(stack, "gate_once", runs[1]))
    assert any("with modalflow cancel" in line for line in log), "\n".join(log)
    assert finish_run(stack, "gate_once", runs[0]) == "success"
