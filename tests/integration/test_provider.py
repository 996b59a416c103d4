"""Airflow sees modalflow as a provider: its executor, its options, their checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from modalflow.cli.deploy import deploy
from modalflow.config.settings import OPTIONS
from modalflow.demo.modal_stack import MODAL_EXECUTOR
from tests.airflows import AIRFLOW
from tests.command_line import CommandLine


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """That of an Airflow of its own."""
    own = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}
    if AIRFLOW < (3, 2):
        # They log to where their commands answer, and take commands from the executor that is configured.
        own["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
        own["AIRFLOW__CORE__EXECUTOR"] = MODAL_EXECUTOR
    return own


@pytest.fixture(scope="module")
def airflow(environment: dict[str, str]) -> Iterator[CommandLine]:
    """``airflow …`` there."""
    with CommandLine(environment, "airflow") as command_line:
        yield command_line


def test_executor_is_listed(environment: dict[str, str]) -> None:
    """`airflow providers executors` names the executor, and no warning stands above it."""
    # From its beginning: the warnings would be those of imports.
    command = [sys.executable, "-m", "airflow", "providers", "executors", "--output", "json"]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    listed = json.loads(ended.stdout)
    names = {row["executor_class_names"] for row in listed}
    assert "modalflow.executor.modal_executor.ModalExecutor" in names


def test_options_are_listed(airflow: CommandLine) -> None:
    """`airflow config list` shows every option, with its description and an example."""
    listed = airflow(
        "config",
        "list",
        "--section",
        "modal_executor",
        "--defaults",
        "--include-descriptions",
        "--include-examples",
        "--include-env-vars",
    )
    for option in OPTIONS:
        assert f"{option.name} = " in listed
        assert f"Example: {option.name} = {option.example}" in listed
        assert f"AIRFLOW__MODAL_EXECUTOR__{option.name.upper()}" in listed


def test_default_is_known(airflow: CommandLine) -> None:
    """Airflow knows an option's default without anything being configured."""
    assert airflow("config", "get-value", "modal_executor", "sweep_interval").strip() == "10"


def test_deploy_is_a_command_of_airflow(airflow: CommandLine) -> None:
    """`airflow modalflow deploy` has the options of `modalflow deploy`."""
    usage = airflow("modalflow", "deploy", "--help")
    for parameter in deploy.params:
        shown = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.opts[0].upper()
        assert shown in usage


def test_an_operators_commands_are_airflows_too(airflow: CommandLine) -> None:
    """`airflow modalflow` lists them all."""
    usage = airflow("modalflow", "--help")
    for command in ("doctor", "status", "logs", "cancel"):
        assert f"\n    {command} " in usage
