"""Teams of Airflow's: each has its own options, and Airflow's settings hold for all that have none of their own."""

from __future__ import annotations

import pytest

from modalflow.airflow_compat import versions
from modalflow.config.settings import Settings
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.worker_env import resolved, workload_env

pytestmark = pytest.mark.skipif(not versions.AIRFLOW_V_3_2_PLUS, reason="teams have executors since Airflow 3.2")

URL = "https://airflow.example.com/execution/"
BUNDLES = '[{"name": "ours", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}]'


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two teams beside everybody."""
    for name, value in {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": URL,
        "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": BUNDLES,
        "AIRFLOW__MODAL_EXECUTOR__APP_NAME": "of-everybody",
        "AIRFLOW__RED___MODAL_EXECUTOR__APP_NAME": "of-red",
        "AIRFLOW__RED___CORE__EXECUTION_API_SERVER_URL": "https://red.example.com/execution/",
        "AIRFLOW__BLUE___MODAL_EXECUTOR__APP_NAME": "of-blue",
        "AIRFLOW__BLUE___MODAL_EXECUTOR__TASK_TIMEOUT": "60",
    }.items():
        monkeypatch.setenv(name, value)


def settings_of(team: str | None) -> Settings:
    return ModalExecutor(team_name=team).settings


def test_each_team_has_its_own_options() -> None:
    """What one team sets, neither the other nor everybody sees; what it does not set has the option's default."""
    assert [settings_of(team).app_name for team in ("red", "blue", None)] == ["of-red", "of-blue", "of-everybody"]
    assert settings_of("blue").task_timeout == 60
    assert settings_of("red").task_timeout == settings_of(None).task_timeout == Settings.defaults().task_timeout


@pytest.mark.parametrize(("team", "url"), [("red", "https://red.example.com/execution/"), ("blue", URL), (None, URL)])
def test_workers_of_a_team_know_where_airflow_is(team: str | None, url: str) -> None:
    """A team without an API server of its own uses everybody's, and has everybody's list of DAG bundles."""
    env = workload_env(settings_of(team), ModalExecutor(team_name=team).conf)
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == url
    assert env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] == BUNDLES


@pytest.mark.parametrize(
    ("way", "url", "relayed"),
    [
        ("auto", "", True),
        ("auto", "https://airflow.example.com/execution/", False),
        ("direct", "", False),
        ("relay", "https://airflow.example.com/execution/", True),
    ],
)
def test_a_url_for_containers_is_the_direct_way(
    monkeypatch: pytest.MonkeyPatch, way: str, url: str, relayed: bool
) -> None:
    """Without one, containers need no way to the host: they use the relay, and it dials the host's own URL."""
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API", way)
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API_URL", url)
    settings, conf = settings_of(None), ModalExecutor().conf
    assert settings.uses_relay is relayed
    chosen = resolved(settings, conf)
    assert chosen.execution_api == ("relay" if relayed else "direct")
    assert workload_env(settings, conf)["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == (URL if relayed else url or URL)


def test_workers_know_the_names_of_executors_and_that_there_are_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would take no DAG that names an executor, and no list of bundles that names a team."""
    names = "LocalExecutor,modal:modalflow.executor.modal_executor.ModalExecutor"
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", names)
    env = workload_env(settings_of(None), ModalExecutor().conf)
    assert env["AIRFLOW__CORE__EXECUTOR"] == names
    assert env["AIRFLOW__CORE__MULTI_TEAM"] == "True"
