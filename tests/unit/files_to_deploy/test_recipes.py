"""The files for docker compose and Helm: valid, and with names and options that exist in Airflow and modalflow."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from modalflow.config.settings import OPTIONS

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE = sorted((DEPLOY / "compose").glob("*.yaml"))

#: The services with Airflow's environment in its official docker-compose.yaml.
SERVICES = {
    "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker",
    "airflow-init", "airflow-cli",
}  # fmt: skip

#: The keys in use of the official chart's values.schema.json (chart 1.18), with their forms there.
EXECUTOR = (
    r"^(([a-zA-Z_][a-zA-Z0-9_]*.)*[A-Z][a-zA-Z0-9]+Executor)(,(([a-zA-Z_][a-zA-Z0-9_]*.)*[A-Z][a-zA-Z0-9]+Executor))*$"
)
TEXT = {"type": "string"}


def record(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


CHART = record(
    [],
    airflowVersion=TEXT,
    images=record([], airflow=record([], repository=TEXT, tag=TEXT)),
    executor={"type": "string", "pattern": EXECUTOR},
    config={"type": "object", "additionalProperties": {"type": "object"}},
    secret={"type": "array", "items": record(["envName", "secretName"], envName=TEXT, secretName=TEXT, secretKey=TEXT)},
    statsd=record([], extraMappings={"type": "array", "items": {"type": "object", "required": ["match", "name"]}}),
)


def load(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / path).read_text())
    return loaded


def environments() -> dict[str, dict[str, str]]:
    """Return the environment of each service, of all files."""
    found: dict[str, dict[str, str]] = {}
    for path in COMPOSE:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            found.setdefault(name, {}).update(service["environment"])
    return found


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_compose_files_follow_the_specification(path: Path) -> None:
    """Each file can be read by itself, and extends the services of Airflow's own file."""
    parsed = compose_spec.PyCompose.from_yaml(path.read_text())
    assert set(parsed.services or {}) == SERVICES


def test_docker_compose_merges_them() -> None:
    """Compose itself reads the files together with services of the same names, and fills in the variables."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    base = json.dumps({"services": {name: {"image": "apache/airflow"} for name in SERVICES}})
    files = [flag for path in COMPOSE for flag in ("-f", str(path))]
    variables = dict.fromkeys(("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "AIRFLOW_JWT_SECRET", "MODAL_SERVER_URL"), "x")
    merged = subprocess.run(
        [docker, "compose", "-f", "-", *files, "config"],
        input=base, env={"PATH": str(Path(docker).parent), "HOME": "/nonexistent", **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert merged.returncode == 0, merged.stderr
    assert set(yaml.safe_load(merged.stdout)["services"]) == SERVICES


def test_every_component_has_the_same_environment() -> None:
    """The API server reads logs, and triggerer and DAG processor import the same settings as the scheduler."""
    scheduler = environments()["airflow-scheduler"]
    assert all(environment == scheduler for environment in environments().values())
    assert {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL"} <= set(scheduler)


def test_secrets_come_from_outside() -> None:
    """No file has a token, and compose refuses to start without one."""
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert re.match(r"\$\{\w+:\?", environments()["airflow-scheduler"][name])


def test_helm_values_have_the_forms_of_the_chart() -> None:
    """A misspelt key would be ignored by Helm, or refused by the chart's schema."""
    jsonschema.validate(load("helm/values.yaml"), CHART)
    jsonschema.validate(load("helm/statsd.yaml"), CHART)


def test_the_chart_gets_the_same_mapping() -> None:
    """statsd_exporter alone and the chart's give the same names."""
    assert load("helm/statsd.yaml")["statsd"]["extraMappings"] == load("prometheus/statsd-mapping.yaml")["mappings"]


def test_named_classes_and_options_exist() -> None:
    """Each class can be imported, and each option is one of modalflow's."""
    values = load("helm/values.yaml")
    executors = (
        environments()["airflow-scheduler"]["AIRFLOW__CORE__EXECUTOR"].rpartition(":-")[2].rstrip("}").split(",")
    )
    classes = [
        *(name for name in (*executors, values["executor"]) if "." in name),
        values["config"]["logging"]["logging_config_class"],
        environments()["airflow-scheduler"]["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"],
    ]
    for name in classes:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)
    assert set(values["config"]["modal_executor"]) <= {option.name for option in OPTIONS}
