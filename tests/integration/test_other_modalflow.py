"""`modalflow doctor` where a part imports, or has, another modalflow than this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import modal
import pytest

import modalflow
from modalflow import Profile, Worker, __version__, control_plane
from modalflow.emulator.local import LocalModal
from modalflow.names import Names
from modalflow.operations.doctor.installation_side import of_executor
from modalflow.protocol.snapshot import Snapshot
from modalflow.worker.deploy.deployment import deploy
from tests.command_line import CommandLine
from tests.integration.stub_execution_api import StubExecutionApi, stub_execution_api
from tests.wheels import install_other_modalflow, make_wheel

SOURCES = Path(modalflow.__file__).parents[1]


@dataclass
class Ward:
    """A worker whose image has the other program, beside this project's code; and a doctor."""

    api: StubExecutionApi
    command: CommandLine

    def examine(self, app: str, **variables: str) -> dict[str, dict[str, Any]]:
        """Run the doctor; its findings by name."""
        done = self.command.run("doctor", "--json", "--app", app, env=variables)
        assert "Traceback" not in done.stderr, done.stderr
        return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of the other program."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "modalflow", "0.3.1")
    return folder


@pytest.fixture(scope="module")
def ward(other: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with LocalModal() as local, stub_execution_api() as api, pytest.MonkeyPatch.context() as environment:
        variables = local.env | {
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
        }
        for name, value in local.env.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        image = (
            modal.Image.debian_slim()
            .add_local_dir(other, "/wheels", copy=True)
            .pip_install("modalflow==0.3.1", find_links="/wheels", extra_options="--no-index")
        )
        deploy(Names("mixed"), bundles={}, worker=Worker([Profile(image=image, image_has_airflow=True)]))
        with CommandLine(variables, "modalflow") as command:
            yield Ward(api, command)


def test_an_image_with_the_other_program(ward: Ward) -> None:
    """The worker runs this project's code; the finding names the other program, its folder and what to remove."""
    findings = ward.examine("mixed")
    assert f"modalflow {__version__}" in findings["container (default)"]["detail"]
    found = findings["container's modalflow"]
    assert found["status"] == "warn"
    assert "another program named modalflow, version 0.3.1, in /" in found["detail"]
    assert "imports this project's from /root/modalflow" in found["detail"]
    assert "Remove modalflow from the requirements file" in found["mend"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (None, "warn", "does not answer at /modalflow/version: it imports another program named modalflow"),
        ({"modalflow": "9.9.9", "installed": None}, "warn", "imports modalflow 9.9.9, here it is"),
        (
            {"modalflow": __version__, "installed": {"version": "0.3.1", "ours": False}},
            "warn",
            "another program of that name, version 0.3.1 is installed there",
        ),
        (
            {"modalflow": __version__, "installed": {"version": "0.4.0", "ours": True}},
            "warn",
            "but version 0.4.0 is installed there",
        ),
        ({"modalflow": __version__, "installed": {"version": __version__, "ours": True}}, "ok", __version__),
    ],
    ids=["another program", "another version", "both", "both of this project", "this one"],
)
def test_the_modalflow_of_an_api_server(ward: Ward, answer: dict[str, Any] | None, status: str, said: str) -> None:
    """A container asks the API server; the finding says what it imports, and where to install what."""
    ward.api.version, ward.api.modalflow = "3.3.2", answer
    try:
        found = ward.examine("mixed")["API server's modalflow"]
    finally:
        ward.api.version, ward.api.modalflow = "", None
    assert found["status"] == status and said in found["detail"]
    assert status == "ok" or "docs/install.md" in found["mend"]


def test_the_other_program_where_the_doctor_runs(tmp_path: Path) -> None:
    """The first finding fails, and names the commands that replace it."""
    site = install_other_modalflow(tmp_path)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(SOURCES), str(site))),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
        "AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT": "1",
        "MODAL_SERVER_URL": "http://127.0.0.1:1",
    }
    command = [sys.executable, "-m", "modalflow.cli", "doctor", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
    first, *_ = json.loads(done.stdout)["findings"]
    assert (first["name"], first["status"]) == ("modalflow", "fail")
    assert f"Another program named modalflow, version 0.3.1, is installed in {site}" in first["detail"]
    assert "pip uninstall modalflow" in first["mend"] and f"modalflow-{__version__}-py3-none-any.whl" in first["mend"]


def test_what_an_executor_reports_of_itself() -> None:
    """A scheduler on another machine publishes what its start logged, and the doctor shows it here."""
    snapshot = Snapshot("p", "host", 7, version=__version__, published_at=time.time())
    assert of_executor(snapshot) is None
    found = of_executor(Snapshot.from_json(replace(snapshot, installation="Another program …").to_json()))
    assert found is not None and found.detail == "host (process 7): Another program …"
