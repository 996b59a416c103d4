"""The configuration of an Airflow host, with the real executor, and that of a task in a real container."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.executors.workloads import ExecuteTask

from modalflow import control_plane
from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.host_options import declared_options
from modalflow.airflow_home.rules.rule import Place
from modalflow.airflow_home.rules.table import RULES, place_of, rule_of
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.emulator.local import LocalModal
from modalflow.names import API_CLIENT_OPTIONS, Names, airflow_variable
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.environment import BUNDLE_LIST
from tests.airflows import AIRFLOW
from tests.driving import Driver
from tests.every_option.values import MODULES, changed
from tests.integration.stub_execution_api import stub_execution_api, task_workload
from tests.integration.world import DAGS

NAMES = Names("host-configuration")
#: The executor needs other values of these, for its tokens, or reports them for a comparison with the API server's.
IN_USE = {
    *(("api_auth", name) for name in ("jwt_private_key_path", "jwt_algorithm", "jwt_issuer", "trusted_jwks_url")),
    ("execution_api", "jwt_audience"),
}
#: Switches that send to a server: there is none, and a task must end without one. Older versions wait long for it.
#: `test_host_settings` of tests/acceptance has servers.
WITH_RECEIVERS = () if AIRFLOW >= (3, 3) else ("otel_on", "sentry_on")
#: Stands for a folder of the operator's in values. No one opens it.
FOLDER = Path("/acme")
#: The folders of running containers in the state folder. Each container sees its own alone.
OF_CONTAINERS = ("containers", "views", "doors")


def options(*places: Place) -> list[tuple[str, str]]:
    """The options of some places that can have any text."""
    declared = declared_options()
    kinds = {key: str(described.get("type")) for key, described in declared.items()}
    rows = {(rule.section, rule.option) for rule in RULES if "*" not in rule.option}
    renamed: Any = own_conf().inversed_deprecated_options
    return sorted(
        key
        for key in (rows | set(declared)) - IN_USE - set(renamed)
        if place_of(*key, "", sensitive=bool(declared.get(key, {}).get("sensitive"))).place in places
        if kinds.get(key, "string") == "string" and key[0] != "modal_executor"
    )


STAY, SEALED = options(Place.HOST, Place.NEVER), options(Place.SEALED)
#: The options whose text Airflow parses at its start: the planted text is a part of it.
PARSED = {("secrets", "backend_kwargs"), ("workers", "secrets_backend_kwargs")}


def planted(section: str, option: str) -> str:
    text = f"planted-for-the-{'host' if (section, option) in STAY else 'task'}: {section} {option}"
    if option == "sentry_dsn":
        return f"http://{text}@127.0.0.1:9/1"
    return json.dumps({"acme": text}) if (section, option) in PARSED else text


def travelling() -> dict[tuple[str, str], str]:
    """Return a value for every option that travels, another one than the default, with a secret in the sealed ones."""
    values = {
        key: value
        for key, value in changed(FOLDER).items()
        if place_of(*key, "").place.leaves_host and key[1] not in WITH_RECEIVERS
    }
    return {**values, **{key: planted(*key) for key in SEALED}}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def driver(state_dir: Path) -> Iterator[Driver]:
    """A scheduler's executor, with a secret in each option that stays on the host, and in each sealed one."""
    with (
        LocalModal(state_dir=state_dir) as local,
        stub_execution_api() as api,
        pytest.MonkeyPatch.context() as environment,
    ):
        bundles = [{"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(DAGS)}}]
        variables = local.env | {
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api.url,
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
            BUNDLE_LIST: json.dumps(bundles),
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(NAMES, bundles={"tests": DAGS})
        environment.syspath_prepend(MODULES)
        for section, option in STAY:
            environment.setenv(airflow_variable(section, option), planted(section, option))
        for (section, option), value in travelling().items():
            environment.setenv(airflow_variable(section.replace(".", "_"), option), value)
        environment.setenv("AIRFLOW__ACME__COLOUR", "planted-in-the-open: green")
        driver = Driver.started()
        yield driver
        driver.executor.end()


def test_a_task_has_the_configuration_of_the_host_without_its_secrets(driver: Driver, state_dir: Path) -> None:
    """Every option that travels has another value than the default. The configurations differ in rows of the table
    alone. The host's secrets are in no payload, ledger, Volume, image, log, command
    line and task. Those of tasks are encrypted everywhere but in their container."""
    assert {("core", "fernet_key"), ("database", "sql_alchemy_conn"), ("api_auth", "jwt_secret")} <= set(STAY)
    workload = ExecuteTask.model_validate_json(
        task_workload("reports_its_configuration", bundle="tests", dag_file="configuration.py")
    )
    # There is no database of Airflow's, in which older versions store the work id.
    driver.executor.queue_workload(workload, session=MagicMock(spec=["execute"]))
    key = workload.ti.key
    driver.until(lambda: driver.executor.running or driver.events.get(key))
    state, info = driver.outcome(key)
    log = driver.log(key)
    assert state == "success", f"{info}\n{log}"
    report = read_report(log)
    assert not report["foreign"] and not report["key"]
    assert len(travelling()) > 150
    assert differing(report["hashes"], travelling()) == []
    rules = {
        key: rule_of(*key) for key in differing(report["hashes"], configuration()) if key not in API_CLIENT_OPTIONS
    }
    assert [key for key, rule in rules.items() if rule is None or rule.place.leaves_host] == []
    assert where_found(state_dir, b"planted-in-the-open: "), "the search finds nothing"
    assert where_found(state_dir, b"planted-for-the-host: ") == []
    assert [file for file in where_found(state_dir, b"planted-for-the-task: ") if file[0] not in OF_CONTAINERS] == []
    assert [line for line in command_lines() if b"planted-for" in line] == []


def configuration() -> dict[tuple[str, str], str]:
    """Return the options of this process's Airflow and its providers, and the user's: (section, option) → value."""
    conf: Any = own_conf()
    return {key: str(conf.get(*key, fallback="")) for key in [*declared_options(), ("acme", "colour")]}


def differing(hashes: dict[str, str], here: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Return the options of which a container has another value than here. No value is an empty one."""
    there = {(section, option): hashes.get(f"[{section}] {option}", digest("")) for section, option in here}
    return [key for key, value in here.items() if there[key] != digest(value)]


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def read_report(log: str) -> dict[str, Any]:
    lines = [json.loads(line)["event"] for line in log.splitlines()]
    report: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("configuration: "))[15:])
    return report


def where_found(folder: Path, content: bytes) -> list[tuple[str, ...]]:
    """Return the files below a folder with some content, as parts of their path."""
    found = []
    for root, _, names in os.walk(folder):
        for file in (Path(root, name) for name in names):
            if file.is_file() and content in file.read_bytes():
                found.append(file.relative_to(folder).parts)
    return found


def command_lines() -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes()
        except OSError:
            continue
