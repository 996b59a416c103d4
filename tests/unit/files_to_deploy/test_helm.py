"""The values for the official Helm chart: accepted by the chart, and with names and options of Airflow and modalflow.

The chart is not a part of this repository. If ``AIRFLOW_HELM_CHART`` names its folder, the values are checked against
its schema, and rendered if ``helm`` is on PATH. They are always checked against the forms of the keys in use.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from modalflow.config.settings import OPTIONS

DEPLOY = Path(__file__).parents[3] / "deploy"
VALUES = [DEPLOY / "helm" / name for name in ("values.yaml", "statsd.yaml")]
MODAL = "modalflow.executor.modal_executor.ModalExecutor"

#: The keys in use, with their forms in values.schema.json of the charts 1.19 to 1.22.
EXECUTOR = (
    r"^(([a-zA-Z_][a-zA-Z0-9_]*.)*[A-Z][a-zA-Z0-9]+Executor)(,(([a-zA-Z_][a-zA-Z0-9_]*.)*[A-Z][a-zA-Z0-9]+Executor))*$"
)
TEXT = {"type": "string"}
SECTION = {"type": "object", "additionalProperties": {"type": ["boolean", "integer", "number", "string"]}}


def record(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


CHART = record(
    [],
    airflowVersion=TEXT,
    images=record([], airflow=record([], repository=TEXT, tag=TEXT)),
    executor={"type": "string", "pattern": EXECUTOR},
    config={"type": "object", "additionalProperties": SECTION},
    secret={"type": "array", "items": record(["envName", "secretName"], envName=TEXT, secretName=TEXT, secretKey=TEXT)},
    statsd=record([], extraMappings={"type": "array", "items": {"type": "object", "required": ["match", "name"]}}),
)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def official() -> Path:
    """Return the folder of the official chart."""
    named = os.environ.get("AIRFLOW_HELM_CHART")
    if not named:
        pytest.skip("AIRFLOW_HELM_CHART does not name a folder with Airflow's official chart (`helm pull --untar`)")
    return Path(named)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """Return a copy of the official chart without its database, which is a chart of its own and often not beside it."""
    folder = tmp_path / "airflow"
    shutil.copytree(official(), folder, ignore=shutil.ignore_patterns("charts", "docs", "newsfragments", "*.tgz"))
    about = load(folder / "Chart.yaml")
    (folder / "Chart.yaml").write_text(yaml.safe_dump({key: about[key] for key in about.keys() - {"dependencies"}}))
    (folder / "Chart.lock").unlink(missing_ok=True)
    return folder


def helm(*arguments: str | Path) -> str:
    """Run helm with the values, and return its output."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not on PATH")
    files = [flag for path in VALUES for flag in ("--values", path)]
    ran = subprocess.run(
        [program, *arguments, *files, "--set", "postgresql.enabled=false"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_values_have_the_forms_of_the_keys_in_use(path: Path) -> None:
    """A misspelt key would be ignored by Helm, or refused by the chart's schema."""
    jsonschema.validate(load(path), CHART)


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_values_follow_the_schema_of_the_chart(path: Path) -> None:
    """The chart's own schema accepts the values."""
    jsonschema.validate(load(path), json.loads((official() / "values.schema.json").read_text()))


def test_helm_lints_the_values(chart: Path) -> None:
    """Helm itself finds nothing wrong with the values."""
    assert "0 chart(s) failed" in helm("lint", chart)


@pytest.mark.parametrize(
    ("executor", "workers"),
    [(MODAL, False), (f"CeleryExecutor,{MODAL}", True), (f"KubernetesExecutor,modal:{MODAL}", False)],
    ids=("modal", "celery", "kubernetes-alias"),
)
def test_helm_renders_every_component_with_modal(chart: Path, executor: str, workers: bool) -> None:
    """Each component gets the options and the credentials, and the exporter the mapping."""
    choice = "executor=" + executor.replace(",", r"\,")
    objects = [o for o in yaml.safe_load_all(helm("template", "airflow", chart, "--set", choice)) if o]
    found = {(o["kind"], o["metadata"]["name"]): o for o in objects}

    options = configparser.RawConfigParser()
    options.read_string(found["ConfigMap", "airflow-config"]["data"]["airflow.cfg"])
    wanted = load(VALUES[0])["config"]
    assert options["core"]["executor"] == executor
    assert options["logging"]["logging_config_class"] == wanted["logging"]["logging_config_class"]
    assert dict(options["modal_executor"]) == wanted["modal_executor"]

    secrets = {
        container["name"]: {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
        for o in found.values()
        if o["kind"] in {"Deployment", "StatefulSet"}
        for container in o["spec"]["template"]["spec"]["containers"]
        if "env" in container
    }
    components = {"scheduler", "api-server", "triggerer", "dag-processor"} | ({"worker"} if workers else set())
    assert components <= secrets.keys()
    assert ("worker" in secrets) == workers
    for name in components:
        assert secrets[name]["MODAL_TOKEN_ID"] == {"name": "modal-token", "key": "id"}
        assert secrets[name]["MODAL_TOKEN_SECRET"] == {"name": "modal-token", "key": "secret"}
    # The scheduler signs the tokens of containers, and the API server checks them.
    for name in ("scheduler", "api-server"):
        assert secrets[name]["AIRFLOW__API_AUTH__JWT_SECRET"] == {"name": "airflow-jwt-secret", "key": "jwt-secret"}

    mappings = yaml.safe_load(found["ConfigMap", "airflow-statsd"]["data"]["mappings.yml"])["mappings"]
    ours = load(VALUES[1])["statsd"]["extraMappings"]
    assert mappings[-len(ours) :] == ours
    # The first mapping that matches applies, and the chart's own come before ours.
    for mapping in mappings[: -len(ours)]:
        pattern = mapping["match"]
        if mapping.get("match_type") != "regex":
            pattern = "^" + re.escape(pattern).replace(r"\*", "[^.]+") + "$"
        for name in ("in_flight", "lost.container-lost", "rpc.FunctionMap.ok", "relay.requests", "budget_used.all.day"):
            assert not re.search(pattern, f"airflow.modal_executor.{name}")

    # The commands of docs/where-airflow-lives.md name this one.
    assert ("Deployment", "airflow-scheduler") in found


def test_the_chart_gets_the_same_mapping() -> None:
    """statsd_exporter alone and the chart's give the same names."""
    mapping = load(DEPLOY / "prometheus/statsd-mapping.yaml")["mappings"]
    assert load(VALUES[1])["statsd"]["extraMappings"] == mapping


def test_named_classes_and_options_exist() -> None:
    """Each class can be imported, and each option is one of modalflow's."""
    values = load(VALUES[0])
    assert values["executor"] == MODAL
    for name in (MODAL, values["config"]["logging"]["logging_config_class"]):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)
    assert set(values["config"]["modal_executor"]) <= {option.name for option in OPTIONS}
