"""What a task would ask of Modal, from Airflow's database and a Worker file, without Modal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.configuration import conf
from click.testing import CliRunner

from modalflow import modal_config
from modalflow.cli.task.render import render as command
from modalflow.config.settings import Settings
from modalflow.demo.modal_stack import MODAL_EXECUTOR
from modalflow.errors import WorkloadRejectedError
from modalflow.operations.single_task.finding import NamedTry, find_planned, find_try
from modalflow.operations.single_task.profiles import Profiles, read_profiles
from modalflow.operations.single_task.rendering import Rendered, Value, render
from modalflow.operations.targets import NothingMatchesError
from tests.airflows import use_executors
from tests.unit.executor.airflow_tables import DAG_ID, AirflowTables, airflow_tables

LOCAL_EXECUTOR = "airflow.executors.local_executor.LocalExecutor"
WORKER = """
import modal, modalflow
worker = modalflow.Worker(
    env={"TZ": "UTC"},
    profiles=[
        modalflow.Profile(cpu=1.0, memory="2GiB", env={"HF_HOME": "/tmp/hf"}),
        modalflow.Profile("gpu", gpu="T4", memory="auto", secrets=[modal.Secret.from_name("huggingface")]),
    ],
)
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowTables]:
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__WORKER_ENV", '{"PLACE": "secret-place"}')
    use_executors(monkeypatch, MODAL_EXECUTOR)
    with airflow_tables(tmp_path) as tables:
        yield tables


@pytest.fixture
def worker(tmp_path: Path) -> str:
    file = tmp_path / "its_worker.py"
    file.write_text(WORKER)
    return str(file)


def rendered(tables: AirflowTables, worker: str, executor_config: object = None, queue: str = "default") -> Rendered:
    key = tables.add("once", "w", executor_config=executor_config, queue=queue)
    found = find_try(NamedTry(key.dag_id, key.task_id, key.run_id))
    settings = Settings.read(conf)
    return render(found.ti, settings, conf, read_profiles(settings, worker))


def test_each_option_names_its_source(tables: AirflowTables, worker: str) -> None:
    """The profile's values, and the task's own above them."""
    found = rendered(tables, worker, modal_config(memory="4GiB", timeout=60, submit_attempts=5, env={"A": "1"}))
    assert (found.profile, found.profile_source) == ("default", "queue 'default'")
    assert found.options["cpu"] == Value(1.0, "profile 'default'")
    assert found.options["memory"] == Value(4096, "modal_config")
    assert found.options["timeout"] == Value(60, "modal_config")
    assert found.options["submit_attempts"] == Value(5, "modal_config")
    assert found.options["concurrency"].value == 1
    # A core, and 4 GiB.
    assert str(found.dollars_per_hour) == "0.079300000000"


def test_variables_have_names_and_sources_without_values(tables: AirflowTables, worker: str) -> None:
    """Each variable is named, with the last of those that set it."""
    found = rendered(tables, worker, modal_config(env={"HF_HOME": "/own"}))
    assert found.variables["HF_HOME"] == "modal_config"
    assert found.variables["TZ"] == "env of the Worker"
    assert found.variables["PLACE"] == "[modal_executor] worker_env"
    assert found.variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "Airflow's settings"
    assert "secret-place" not in repr(found)


def test_a_queue_selects_its_profile(tables: AirflowTables, worker: str) -> None:
    """The image, the GPU and the Secrets are those of the profile, and an 'auto' size needs Modal."""
    found = rendered(tables, worker, queue="gpu")
    assert (found.profile, found.profile_source) == ("gpu", "queue 'gpu'")
    assert found.options["gpu"] == Value("T4", "profile 'gpu'")
    assert found.options["secrets"] == Value(["huggingface"], "profile 'gpu'")
    assert found.options["memory"].source == "'auto', without enough runs of the task"
    assert any("on Modal and were not read" in note for note in found.notes)


@pytest.mark.parametrize(
    ("executor_config", "words"),
    [
        ({"modal": {"memroy": 1024}}, "did you mean 'memory'"),
        ({"modal": {"profile": "gpus"}}, "Profile 'gpus' is not deployed; deployed profiles: default, gpu"),
        ({"modal": {"timeout": "long"}}, "['timeout'] is 'long'"),
    ],
)
def test_a_wrong_request_has_the_executors_reason(
    tables: AirflowTables, worker: str, executor_config: object, words: str
) -> None:
    """The same error as in the log of the task."""
    with pytest.raises(WorkloadRejectedError) as raised:
        rendered(tables, worker, executor_config)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("executors", "named", "other"),
    [
        (f"LocalExecutor,gpu:{MODAL_EXECUTOR}", None, "LocalExecutor"),
        (f"LocalExecutor,gpu:{MODAL_EXECUTOR}", "gpu", ""),
        (f"{MODAL_EXECUTOR},modal_like:{LOCAL_EXECUTOR}", "modal_like", "modal_like"),
        (MODAL_EXECUTOR, None, ""),
    ],
)
def test_a_task_of_another_executor_names_it(
    tables: AirflowTables, worker: str, monkeypatch: pytest.MonkeyPatch, executors: str, named: str | None, other: str
) -> None:
    """By Airflow's configuration: the default one, or one with any alias."""
    use_executors(monkeypatch, executors)
    settings = Settings.read(conf)
    planned = find_planned(DAG_ID, "once", None)
    planned.executor = named
    found = render(planned, settings, conf, read_profiles(settings, worker))
    assert [note.partition(" ")[0] for note in found.notes if "not ModalExecutor" in note] == ([other] if other else [])


def test_a_next_run_needs_no_task_instance(tables: AirflowTables, worker: str) -> None:
    """Before the first run, the task is the one of the newest DAG version."""
    settings = Settings.read(conf)
    found = render(find_planned(DAG_ID, "once", None), settings, conf, read_profiles(settings, worker))
    assert found.profile == "default"


def test_without_an_answer_of_modal_the_profile_is_unknown(tables: AirflowTables) -> None:
    """What the task itself asks for is shown, with the reason for the rest."""
    settings = Settings.read(conf)
    found = render(find_planned(DAG_ID, "once", None), settings, conf, Profiles(None, "app", problem="No answer."))
    assert found.image == "unknown"
    assert found.notes == ["The values of its profile are unknown: No answer. Name the Worker file with --worker."]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (NamedTry("loses", "once", "run-0"), "no DAG 'loses'. Nearest DAGs: losses."),
        (NamedTry(DAG_ID, "onze", "run-0"), "Run 'run-0' of DAG 'losses' has no task 'onze'. Nearest tasks: once."),
        (NamedTry(DAG_ID, "once", "run-9"), "DAG 'losses' has no run 'run-9'. Nearest runs: run-0."),
        (NamedTry(DAG_ID, "once", "run-0", 3), "is not mapped: leave --map-index out."),
        (NamedTry(DAG_ID, "once", "run-0", None, 4), "has no try 4. Tries: 1."),
    ],
)
def test_mistyped_names_have_the_nearest_ones(tables: AirflowTables, wanted: NamedTry, words: str) -> None:
    """Each error names what there is instead."""
    tables.add("once", "w")
    with pytest.raises(NothingMatchesError) as raised:
        find_try(wanted)
    assert words in str(raised.value)


def test_a_mapped_task_needs_its_index(tables: AirflowTables) -> None:
    """The error has the indexes."""
    key = tables.add("once", "w", map_index=2)
    with pytest.raises(NothingMatchesError, match=r"is mapped: name one instance with --map-index \(2\)"):
        find_try(NamedTry(DAG_ID, "once", key.run_id))
    assert find_try(NamedTry(DAG_ID, "once", key.run_id, 2)).ti.map_index == 2


def test_the_command_prints_json(tables: AirflowTables, worker: str) -> None:
    """No value of a variable is in it."""
    done = CliRunner().invoke(command, [DAG_ID, "once", "--worker", worker, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["options"]["cpu"] == {"value": 1.0, "from": "profile 'default'"}
    assert "secret-place" not in done.output


def test_the_command_prints_a_table(tables: AirflowTables, worker: str) -> None:
    """Values of variables are masked."""
    done = CliRunner().invoke(command, [DAG_ID, "once", "--worker", worker])
    assert done.exit_code == 0, done.output
    assert "per hour of a container" in done.output
    assert "HF_HOME" in done.output
    assert "/tmp/hf" not in done.output
