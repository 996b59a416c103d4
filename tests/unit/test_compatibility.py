"""Executors and workers of version 0.4.0 and of this one understand each other."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from modalflow.protocol.messages import Deployment, Entry, Kind, State, Submission
from modalflow.worker import app

CHECKOUT = Path(__file__).parents[2]

#: As 0.4.0 wrote them.
SUBMISSION = {
    "work_id": "w",
    "kind": "command",
    "log_path": "dag_id=d/run_id=r/task_id=t/attempt=1.log",
    "partition": "executor-1",
    "label": "d.t run r try 1",
    "workload": None,
    "command": ["true"],
    "env": {"A": "b"},
    "own_env": ["A"],
    "profile": "default",
    "resources": {"cpu": 1.0},
    "submitted_at": 1.5,
    "protocol": 1,
    "executor_version": "0.4.0",
}
ENTRY = {
    "work_id": "w",
    "state": "failed",
    "function_call_id": "fc-1",
    "container_id": "ta-1",
    "owner": "o",
    "label": "d.t run r try 1",
    "partition": "executor-1",
    "started_at": 1.5,
    "finished_at": 2.5,
    "return_code": 3,
    "final_state": None,
    "reason": "The command ended with exit code 3.",
    "cause": "",
    "worker_version": "0.4.0",
    "protocol": 1,
}
DEPLOYMENT = {
    "version": "0.4.0",
    "protocol": 1,
    "airflow_version": "3.3.2",
    "python_version": "3.11.7",
    "profiles": ["default"],
    "bundles": {"dags": "/opt/modalflow/bundles/dags"},
    "deployed_at": 1.5,
    "facts": {"default": {"cpu": 1.0}},
    "granted": {"default": {"cpu": 1.0}},
    "volumes": {"/opt/modalflow/logs": "modalflow-logs"},
    "packages": {"six": "1.0"},
    "requirements": ["six"],
    "env": {"A": "digest"},
    "dags_source": "local",
}


def test_messages_of_0_4_0_are_read() -> None:
    submission = Submission.from_wire(SUBMISSION)
    assert (submission.kind, submission.command, submission.start_after) == (Kind.COMMAND, ("true",), 0.0)
    entry = Entry.from_json(json.dumps(ENTRY))
    assert (entry.state, entry.return_code, entry.task) == (State.FAILED, 3, None)
    assert Deployment.from_json(json.dumps(DEPLOYMENT)).profiles == ("default",)


def test_messages_have_everything_that_0_4_0_reads() -> None:
    """It ignores other fields, and refuses another type."""
    for theirs, ours in (
        (SUBMISSION, Submission.from_wire(SUBMISSION).to_wire()),
        (ENTRY, json.loads(Entry.from_json(json.dumps(ENTRY)).to_json())),
        (DEPLOYMENT, json.loads(Deployment.from_json(json.dumps(DEPLOYMENT)).to_json())),
    ):
        assert {name: ours[name] for name in theirs} == theirs


def test_deployed_functions_find_their_body() -> None:
    """A deployed Function refers to it by these names."""
    assert (app.run.__module__, app.run.__qualname__) == ("modalflow.worker.app", "run")


def test_entry_points_that_end_airflow_name_modules_of_0_4_0() -> None:
    """In a container, this version's entry points may meet the code of an older deployment."""
    points = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["airflow.policy"] == {"modalflow": "modalflow.provider"}
    assert points["apache_airflow_provider"] == {"provider_info": "modalflow.provider:get_provider_info"}
