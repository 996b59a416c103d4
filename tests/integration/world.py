"""A deployed worker app on a local control plane, and what a test does with it: submit, wait, read.

Needs no Airflow of its own: the stub stands in for the Execution API.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import modal

from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.control_plane import ControlPlane
from modalflow.emulator.faults.fault_control import FaultControl
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEFAULT_PROFILE, Names
from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.worker.environment import BUNDLE_LIST
from tests.command_line import PATIENCE, CommandLine
from tests.integration import stalled
from tests.integration.stub_execution_api import StubExecutionApi, stub_execution_api, task_workload
from tests.sdk import client_of
from tests.support import in_gvisor, over_base, wait_until

T = TypeVar("T")

DAGS = Path(__file__).parent / "dags"

#: Importing Airflow takes some seconds, more on a busy machine and in gVisor.
COLD = 180.0 if in_gvisor() else 60.0

#: Seconds for a deployment; over another root, it installs some 170 packages for each image.
DEPLOYMENT = 1200.0 if over_base() else PATIENCE

#: Seconds between two questions to the control plane: each costs it as much as the one who asks.
POLL = 0.1


@dataclass
class Work:
    """One submission and what can be learnt of it."""

    world: World
    work_id: str
    partition: str
    wire: dict[str, Any]
    calls: list[modal.FunctionCall[dict[str, Any]]] = field(default_factory=list)

    def spawn(self) -> modal.FunctionCall[dict[str, Any]]:
        self.calls.append(self.world.function.spawn(self.wire))
        return self.calls[-1]

    def result(self, timeout: float = COLD) -> dict[str, Any]:
        return self.calls[-1].get(timeout=timeout)

    def entry(self) -> Entry | None:
        text = self.world.ledger.get(self.work_id)
        return None if text is None else Entry.from_json(text)

    def running(self) -> Entry:
        return self._awaited(self.entry, f"{self.work_id} to be claimed")

    def ended(self) -> Entry:
        """The entry once it is terminal."""

        def terminal() -> Entry | None:
            entry = self.entry()
            return entry if entry is not None and entry.state is not State.RUNNING else None

        return self._awaited(terminal, f"{self.work_id} to end")

    def event(self) -> Entry:
        return Entry.from_json(self.world.events.get(partition=self.partition, timeout=COLD))

    def log(self) -> str:
        return "".join(self.world.logs.read(self.wire["log_path"])[1])

    def log_with(self, text: str) -> str:
        return self._awaited(lambda: log if text in (log := self.log()) else None, f"{text!r} in the log")

    def _awaited(self, condition: Callable[[], T | None], what: str) -> T:
        """Return the condition's value once there is one; the error names what the work and the containers do."""
        try:
            found = wait_until(condition, COLD, what, POLL)
        except AssertionError as error:
            report = stalled.report(self.world.app, self.world.faults, self.world.variables)
            raise AssertionError(f"{error}\nentry: {self.entry()}\nlog: {self.log()!r}\n{report}") from error
        assert found is not None
        return found


@dataclass
class World:
    """A deployed worker app, and the executor's handles on it."""

    app: str
    function: modal.Function[Any, Any, Any]
    ledger: modal.Dict
    events: modal.Queue
    logs: LogVolume
    api: StubExecutionApi
    deploy: Callable[..., World]
    faults: FaultControl
    client: modal.Client
    variables: Mapping[str, str]
    """With which the SDK finds the control plane."""
    modalflow_cli: CommandLine
    local: LocalModal

    def command(self, command: tuple[str, ...] | str, **changes: Any) -> Work:
        """Submit a raw command."""
        work = self.submission(kind=Kind.COMMAND, command=command, **changes)
        work.spawn()
        return work

    def task(
        self, task_id: str, *, bundle: str = "tests", version: str | None = None, dag_file: str = "d.py", **changes: Any
    ) -> Work:
        """Submit a task of the DAG file in this folder, or of another bundle's, as the executor would."""
        bundles = [{"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}}]
        changes["env"] = {
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self.api.url,
            BUNDLE_LIST: json.dumps(bundles),
            **changes.get("env", {}),
        }
        workload = task_workload(task_id, bundle=bundle, version=version, dag_file=dag_file)
        work = self.submission(**{"kind": Kind.WORKLOAD, "workload": workload} | changes)
        work.spawn()
        return work

    def submission(self, **values: Any) -> Work:
        work_id = uuid.uuid4().hex
        wire = Submission(
            **{"work_id": work_id, "log_path": f"logs/{work_id}", "partition": work_id, "label": f"work {work_id}"}
            | values
        ).to_wire()
        return Work(self, work_id, work_id, wire)


@contextmanager
def deployed_worker(
    modalflow_cli: CommandLine,
    app: str,
    *arguments: str,
    modal_options: Options | None = None,
    bundle: str = f"tests={DAGS}",
) -> Iterator[World]:
    """Deploy an app with the real command to a local control plane of its own; arguments are those of `deploy`."""
    with LocalModal(modal_options) as local, stub_execution_api() as api, client_of(local.url, local.env) as client:

        def deploy(*arguments: str) -> World:
            environ = os.environ | local.env
            done = modalflow_cli.run(
                "deploy", *arguments, "--dags-bundle", bundle, environ=environ, patience=DEPLOYMENT
            )
            assert done.returncode == 0, done.stdout + done.stderr
            names = Names(arguments[arguments.index("--app") + 1])
            return World(
                names.app,
                modal.Function.from_name(names.app, names.function(DEFAULT_PROFILE), client=client),
                modal.Dict.from_name(names.ledger, client=client),
                modal.Queue.from_name(names.events, client=client),
                LogVolume(ControlPlane(client, None), names),
                api,
                deploy,
                local.faults,
                client,
                local.env,
                modalflow_cli,
                local,
            )

        yield deploy("--app", app, *arguments)
