"""The cluster policy, as Airflow's DAG processor calls it."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from modalflow import airflow_policy
from tests.airflows import AIRFLOW

DAG_FILE = """
from collections import OrderedDict, UserDict
from types import MappingProxyType
from airflow.sdk import DAG, task
@task
def asks(x=1): ...
with DAG("asks", schedule=None):
    asks.override(task_id="plain", executor_config={config})()
    asks.override(task_id="mapped", executor_config={mapped}).expand(x=[1, 2])
"""


class Source:
    """An expression, as a DAG file has it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies of the installed distributions, as Airflow loads them when it is initialised."""
    settings: Any = import_module("airflow.settings")
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    if AIRFLOW >= (3, 2):
        manager = settings.get_policy_plugin_manager.__wrapped__()
        monkeypatch.setattr(settings, "get_policy_plugin_manager", lambda: manager)
    else:
        monkeypatch.setattr(settings, "POLICY_PLUGIN_MANAGER", None)
        settings.configure_policy_plugin_manager()
        manager = settings.POLICY_PLUGIN_MANAGER
    settings.load_policy_plugins(manager)


def imported(folder: Path, config: object, mapped: object = None) -> tuple[list[str], str]:
    """The DAGs of a file, and what Airflow says of those that it refuses."""
    dag_bag: Any = import_module("airflow.dag_processing.dagbag" if AIRFLOW >= (3, 2) else "airflow.models.dagbag")
    bundle = {"bundle_name": "tests"} if AIRFLOW >= (3, 2) else {}
    file = folder / "asks.py"
    file.write_text(DAG_FILE.format(config=repr(config), mapped=repr(mapped)))
    bag = dag_bag.DagBag(dag_folder=file, bundle_path=folder, **bundle)
    return list(bag.dags), str(bag.import_errors.get(str(file)) or bag.import_errors.get(file.name) or "")


def test_airflow_finds_the_policy() -> None:
    """It is an entry point of the distribution: no one has to configure it. Version 0.4.0 has the module, too."""
    [found] = [each for each in entry_points(group="airflow.policy") if each.name == "modalflow"]
    assert found.value == "modalflow.provider"
    assert found.load().task_policy is airflow_policy.task_policy


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(("config", "kind"), [("gpu", "str"), (["gpu"], "list"), (7, "int"), (True, "bool")])
def test_a_config_that_would_end_the_scheduler_is_an_import_error(tmp_path: Path, config: object, kind: str) -> None:
    """The user reads it beside the DAG file, and the scheduler goes on with all other DAGs."""
    dags, said = imported(tmp_path, config)
    assert dags == []
    assert f"executor_config of task 'plain' is of type {kind}; expected a dict" in said and "modal_config" in said
    dags, said = imported(tmp_path, {}, config)
    assert dags == [] and "executor_config of task 'mapped'" in said


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize(
    ("mapping", "kind"), [("MappingProxyType({'gpu': 'T4'})", "mappingproxy"), ("UserDict(gpu='T4')", "UserDict")]
)
def test_a_mapping_that_airflow_stores_as_a_text_is_an_import_error(tmp_path: Path, mapping: str, kind: str) -> None:
    """A serialized DAG has the text ``{'gpu': 'T4'}`` instead of it, which ends the scheduler as well."""
    dags, said = imported(tmp_path, Source(mapping))
    assert dags == []
    assert f"executor_config of task 'plain' is of type {kind}; expected a dict" in said


@pytest.mark.usefixtures("policies")
def test_a_dict_of_another_class_is_left_alone(tmp_path: Path) -> None:
    """Airflow serializes it as a dict."""
    assert imported(tmp_path, Source("OrderedDict(modal={})")) == (["asks"], "")


@pytest.mark.usefixtures("policies")
@pytest.mark.parametrize("config", [None, {}, {"modal": {"gpu": "T4"}}, {"pod_override": {"spec": {}}}])
def test_any_dict_is_left_alone(tmp_path: Path, config: object) -> None:
    """What is in it is for the executors to read."""
    assert imported(tmp_path, config, config) == (["asks"], "")
