"""The stage for figures of sandboxes: the deployed worker on a local control plane.

The Execution API answers at once: no Airflow runs beside the containers.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal

import modalflow
from benchmarks import machine
from modalflow import control_plane
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.emulator.local import LocalModal
from modalflow.names import DEFAULT_PROFILE, Names
from modalflow.protocol.messages import Kind, Submission
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.environment import BUNDLE_LIST
from tests.integration.stub_execution_api import StubExecutionApi, stub_execution_api, task_workload

DAGS = Path(__file__).parent / "sandbox_dags"


@dataclass(frozen=True)
class World:
    """The Execution API of all stages, and a HOME without files: a shell of a task reads ``~/.bashrc``."""

    api: StubExecutionApi
    home: str


@contextmanager
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack.enter_context(stub_execution_api()), stack.enter_context(tempfile.TemporaryDirectory()))


@dataclass(frozen=True)
class Submitted:
    """A function call with one workload."""

    call: Any
    ti_id: str = ""
    """The id of its task instance; empty for a command."""


class SandboxStage:
    """A control plane with the deployed worker."""

    def __init__(self, local: LocalModal, world: World, names: Names, worker: modalflow.Worker | None = None) -> None:
        os.environ.update(local.env)
        control_plane._known.clear()
        deploy(names, bundles={"bench": DAGS}, worker=worker)
        self.local, self.world, self.names = local, world, names
        self.client = control_plane.connect().client

    def submit_command(self, *command: str) -> Submitted:
        """Submit a raw command to the default profile."""
        return Submitted(self._spawn(DEFAULT_PROFILE, kind=Kind.COMMAND, command=command))

    def submit_task(self, task_id: str, profile: str = DEFAULT_PROFILE) -> Submitted:
        """Submit a task of ``sandbox_dags``."""
        bundles = [{"name": "bench", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(DAGS)}}]
        env = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self.world.api.url, BUNDLE_LIST: json.dumps(bundles)}
        workload = task_workload(task_id, bundle="bench", dag_file="d.py")
        call = self._spawn(profile, kind=Kind.WORKLOAD, workload=workload, env=env | {"HOME": self.world.home})
        return Submitted(call, json.loads(workload)["ti"]["id"])

    def containers(self) -> list[int]:
        """Return the processes below the one that starts containers."""
        return machine.below(self.local.pid)[1:]

    def _spawn(self, profile: str, **values: Any) -> Any:
        work_id = uuid.uuid4().hex
        log_path = f"logs/{work_id}"
        submission = Submission(
            work_id=work_id, log_path=log_path, partition=work_id, label=work_id, profile=profile, **values
        )
        function: Any = modal.Function.from_name(self.names.app, self.names.function(profile), client=self.client)
        return function.spawn(submission.to_wire())
