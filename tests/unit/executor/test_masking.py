"""What the Airflow host masks in logs, its workers mask: the settings of the masker travel with every workload."""

from __future__ import annotations

import pytest

from modalflow.airflow_compat import configuration, versions
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.worker_env import masking_env
from modalflow.names import MASKING_OPTIONS, airflow_variable
from modalflow.worker import environment

NAMES = "AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES"
SET = {
    NAMES: "door_pin,kennwort",
    "AIRFLOW__CORE__HIDE_SENSITIVE_VAR_CONN_FIELDS": "False",
    "AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "3",
    "AIRFLOW__LOGGING__SECRET_MASK_ADAPTER": "urllib.parse.quote",
}


@pytest.fixture
def executor() -> ModalExecutor:
    return ModalExecutor()


def test_every_setting_of_the_masker_travels(monkeypatch: pytest.MonkeyPatch, executor: ModalExecutor) -> None:
    """Each as the host has it."""
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    assert masking_env(executor.conf) == SET
    assert set(SET) == {airflow_variable(section, option) for section, option in MASKING_OPTIONS}


def test_a_setting_of_the_file_travels(executor: ModalExecutor) -> None:
    """Whatever it is set by, Airflow's own reader of its configuration is asked."""
    conf = configuration.own_conf()
    conf.set("core", "sensitive_var_conn_names", "kennwort")
    try:
        assert masking_env(executor.conf) == {NAMES: "kennwort"}
    finally:
        conf.remove_option("core", "sensitive_var_conn_names")


def test_defaults_need_not_travel(executor: ModalExecutor) -> None:
    """Workers have them, and every workload would carry them."""
    assert masking_env(executor.conf) == {}


def test_none_of_them_costs_a_new_process() -> None:
    """A process that has imported Airflow runs workloads of any of these settings: it reads them again for each."""
    assert environment.read_at_import(SET) == ()


@pytest.mark.skipif(not versions.AIRFLOW_V_3_2_PLUS, reason="teams have executors since Airflow 3.2")
def test_a_teams_names_count_beside_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A team cannot lose what everybody has masked; its other settings count above everybody's."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setenv(NAMES, "door_pin")
    monkeypatch.setenv("AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET", "3")
    monkeypatch.setenv("AIRFLOW__RED___CORE__SENSITIVE_VAR_CONN_NAMES", "kennwort")
    monkeypatch.setenv("AIRFLOW__RED___LOGGING__MIN_LENGTH_MASKED_SECRET", "2")
    red, blue = (masking_env(ModalExecutor(team_name=team).conf) for team in ("red", "blue"))
    assert red == {NAMES: "door_pin,kennwort", "AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "2"}
    assert blue == {NAMES: "door_pin", "AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "3"}
