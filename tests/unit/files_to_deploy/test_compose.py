"""The files for docker compose: valid for Compose itself, and with names and options of Airflow and modalflow."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import compose_spec
import pytest
import yaml

from modalflow.cli.local.local import run as local_run

DEPLOY = Path(__file__).parents[3] / "deploy"
#: In the order in which they are named to Compose.
COMPOSE = [DEPLOY / "compose" / name for name in ("modal.yaml", "modal-local.yaml")]
BESIDE = DEPLOY / "compose" / "modal-beside.yaml"
FILES = [COMPOSE[:1], COMPOSE, [*COMPOSE, BESIDE]]

#: What the files demand in ``.env``.
NEEDED = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "AIRFLOW__API_AUTH__JWT_SECRET", "MODAL_SERVER_URL")

#: The services with Airflow's environment in its official docker-compose.yaml.
SERVICES = {
    "airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker",
    "airflow-init", "airflow-cli",
}  # fmt: skip


def environments() -> dict[str, dict[str, str]]:
    """Return the environment of each service, of all files."""
    found: dict[str, dict[str, str]] = {}
    for path in COMPOSE:
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            found.setdefault(name, {}).update(service["environment"])
    return found


@pytest.mark.parametrize("path", FILES[-1], ids=lambda path: path.stem)
def test_compose_files_follow_the_specification(path: Path) -> None:
    """Each file can be read by itself, and extends the services of Airflow's own file."""
    # The parser fills in no variables, and an image's name has a form.
    filled = re.sub(r"\$\{\w+:[?-][^}]*\}", "x", path.read_text())
    parsed = compose_spec.PyCompose.from_yaml(filled)
    assert set(parsed.services or {}) == ({"modal"} if path == BESIDE else SERVICES)


def compose() -> list[str]:
    """Return the command of Docker Compose: the plugin of ``docker``, or the program of its first version."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    alone = shutil.which("docker-compose")
    if alone is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed (Debian's package docker-compose)")
    return [alone]


def config(files: list[Path], variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Merge the files with services of Airflow's names by Compose itself."""
    base = folder / "docker-compose.yaml"
    service = {"image": "apache/airflow", "environment": {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "KEPT": "x"}}
    base.write_text(json.dumps({"services": dict.fromkeys(SERVICES, service)}))
    return subprocess.run(
        [*compose(), *(flag for path in (base, *files) for flag in ("-f", str(path))), "config"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("files", FILES, ids=lambda files: files[-1].stem)
def test_docker_compose_merges_them(files: list[Path], tmp_path: Path) -> None:
    """Compose reads the files together with Airflow's services, and every service gets the same environment."""
    merged = config(files, dict.fromkeys((*NEEDED, "AIRFLOW_IMAGE_NAME"), "from-env"), tmp_path)
    assert merged.returncode == 0, merged.stderr
    services = yaml.safe_load(merged.stdout)["services"]
    beside = services.pop("modal", None)
    assert set(services) == SERVICES
    for service in services.values():
        environment = service["environment"]
        assert environment == services["airflow-scheduler"]["environment"]
        assert environment["KEPT"] == "x"
        assert environment["AIRFLOW__CORE__EXECUTOR"].startswith("CeleryExecutor,modalflow.")
        assert {environment[name] for name in NEEDED if name != "MODAL_SERVER_URL"} == {"from-env"}
    assert services["airflow-cli"]["environment"]["MODAL_SERVER_URL"] == "from-env"
    assert services["airflow-cli"]["environment"]["MODAL_ENVIRONMENT"] == ("main" if COMPOSE[-1] in files else "")
    assert (beside is not None) == (BESIDE in files)
    if beside is not None:
        assert beside["environment"] == {
            "MODALFLOW_LOCAL_TOKEN_ID": "from-env", "MODALFLOW_LOCAL_TOKEN_SECRET": "from-env",
        }  # fmt: skip


@pytest.mark.parametrize("missing", NEEDED)
def test_docker_compose_refuses_a_missing_secret(missing: str, tmp_path: Path) -> None:
    """A stack without a token or a signing secret would start, and every task would fail."""
    refused = config(COMPOSE, {name: "x" for name in NEEDED if name != missing}, tmp_path)
    assert refused.returncode != 0
    assert f"set {missing} in .env" in refused.stderr


def test_every_component_has_the_same_environment() -> None:
    """The API server reads logs, and triggerer and DAG processor import the same settings as the scheduler."""
    scheduler = environments()["airflow-scheduler"]
    assert all(environment == scheduler for environment in environments().values())
    assert {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL"} <= set(scheduler)


def test_the_command_of_the_service_has_options_of_modalflow() -> None:
    """A renamed option would end the service at its start."""
    command = yaml.safe_load(BESIDE.read_text())["services"]["modal"]["command"][0]
    options = re.findall(r"(?<= )--[a-z-]+", command)
    names = {name for parameter in local_run.params for name in parameter.opts}
    assert options == ["--host", "--port", "--state-dir"]
    assert set(options) <= names


def test_secrets_come_from_outside() -> None:
    """No file has a token."""
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert re.match(r"\$\{\w+:\?", environments()["airflow-scheduler"][name])


def test_named_classes_exist() -> None:
    """Each class can be imported."""
    environment = environments()["airflow-scheduler"]
    executors = environment["AIRFLOW__CORE__EXECUTOR"].rpartition(":-")[2].rstrip("}").split(",")
    for name in (*executors, environment["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"]):
        module, _, attribute = name.rpartition(".")
        assert not module or hasattr(importlib.import_module(module), attribute)
