"""A deployed worker that is well, and the doctor, as a command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modalflow import control_plane
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.emulator.local import LocalModal
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.environment import BUNDLE_LIST
from tests.command_line import CommandLine
from tests.integration.stub_execution_api import StubExecutionApi, stub_execution_api

DAGS = Path(__file__).parent / "dags"
TOKEN = "as-very-secret"
JWT_SECRET = "shared-by-scheduler-and-api-server-" + "0" * 32


@dataclass
class Clinic:
    """A worker that is well, and a doctor."""

    local: LocalModal
    api: StubExecutionApi
    command: CommandLine

    def examine(self, *arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
        """Run the doctor with some variables spoilt; its findings by name."""
        done = self.command.run("doctor", "--json", *arguments, env=variables)
        assert "Traceback" not in done.stderr, done.stderr
        told = json.loads(done.stdout)
        assert done.returncode == (0 if told["ok"] else 1)
        for secret in (TOKEN, JWT_SECRET, "eyJ"):
            assert secret not in done.stdout + done.stderr
        return {finding["name"]: finding for finding in told["findings"]}

    def failures(self, *arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
        """What fails then; each with the way to mend it."""
        findings = self.examine(*arguments, **variables)
        failed = {name: finding for name, finding in findings.items() if finding["status"] == "fail"}
        assert all(finding["mend"] for finding in failed.values())
        return failed


@contextmanager
def open_clinic(airflow_home: Path) -> Iterator[Clinic]:
    """A clinic beside an Airflow home of this machine."""
    with LocalModal() as local, stub_execution_api() as api, pytest.MonkeyPatch.context() as environment:
        bundle = {"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}}
        variables = local.env | {
            "AIRFLOW_HOME": str(airflow_home),
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTOR": "modalflow.executor.modal_executor.ModalExecutor",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "modalflow.airflow_logging.LOGGING_CONFIG",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": "patient",
            "AIRFLOW__API_AUTH__JWT_SECRET": JWT_SECRET,
            BUNDLE_LIST: json.dumps([bundle]),
        }
        api.jwt_secret = JWT_SECRET
        for name, value in local.env.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(Names("patient"), bundles={"tests": DAGS})
        with CommandLine(variables, "modalflow") as command:
            yield Clinic(local, api, command)
