"""The environment of what runs in a container."""

from __future__ import annotations

import json

import pytest

from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.names import FIRST_LOGS_MOUNT, LOGS_MOUNT
from modalflow.worker import environment
from modalflow.worker.airflow_home.airflow_home import AirflowHome
from modalflow.worker.environment import BUNDLE_LIST, rewrite_bundles
from modalflow.worker.zygote.prestart import logs_mount


def bundle(name: str, classpath: str = LOCAL_BUNDLE, **kwargs: object) -> dict[str, object]:
    return {"name": name, "classpath": classpath, "kwargs": kwargs}


def test_baked_local_bundles_are_found_where_the_image_has_them() -> None:
    """Only local bundles that are in the image move; their other arguments and all other bundles stay."""
    listed = [
        bundle("dags-folder", path="/home/me/dags", refresh_interval=5),
        bundle("not-baked", path="/elsewhere"),
        bundle("git", "airflow.providers.git.bundles.git.GitDagBundle", path="x"),
    ]
    rewritten = json.loads(rewrite_bundles(json.dumps(listed), {"dags-folder": "/opt/b", "git": "/opt/g"}) or "")
    assert rewritten == [bundle("dags-folder", path="/opt/b", refresh_interval=5), *listed[1:]]


def test_without_a_list_the_baked_bundles_are_listed() -> None:
    """A worker whose executor sends no list still finds what was deployed with it."""
    assert json.loads(rewrite_bundles(None, {"b": "/opt/b"}) or "") == [bundle("b", path="/opt/b")]
    assert rewrite_bundles(None, {}) is None


@pytest.mark.parametrize("listed", ["not json", '{"a": 1}', "[1, null]"])
def test_a_malformed_list_is_left_to_airflow(listed: str) -> None:
    """What is no list of bundles reaches Airflow unharmed: its own error names the setting."""
    rewritten = rewrite_bundles(listed, {"b": "/opt/b"})
    assert rewritten == listed


def test_the_worker_has_the_last_word_on_what_only_it_can_know() -> None:
    """Submitted variables are above the container's, and the worker's own above both."""
    env = environment.of_workload(
        {"A": "container", "B": "container", "AIRFLOW_HOME": "/image"},
        {"A": "submitted", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/scheduler", "AIRFLOW__CORE__LOAD_EXAMPLES": "True"},
        home="/private",
        folders={},
    )
    assert (env["A"], env["B"]) == ("submitted", "container")
    assert (env["AIRFLOW_HOME"], env["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) == ("/private", "/opt/modalflow/logs")
    assert env["AIRFLOW__CORE__LOAD_EXAMPLES"] == "True"
    assert BUNDLE_LIST not in env


def test_a_worker_is_more_patient_with_the_api_server_than_airflow() -> None:
    """Below whatever anyone sets, so that a container's first process has it before there is a workload."""
    timeout, attempts = "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT", "AIRFLOW__WORKERS__EXECUTION_API_RETRIES"
    own = environment.of_workload({}, {}, home="/private", folders={})
    assert (float(own[timeout]), int(own[attempts])) == (environment.API_TIMEOUT, environment.API_ATTEMPTS)
    env = environment.of_workload({timeout: "7"}, {attempts: "9"}, home="/private", folders={})
    assert (env[timeout], env[attempts]) == ("7", "9")


def test_workloads_share_a_zygote_unless_airflow_may_have_read_the_difference_at_import() -> None:
    """URL, bundles, connections and ordinary variables do not need a zygote of their own; Airflow settings do."""
    plain = environment.read_at_import({"X": "1"})
    shared = {
        "X": "2",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://a/execution/",
        BUNDLE_LIST: "[]",
        "AIRFLOW_CONN_A": "x://",
        "AIRFLOW_VAR_A": "y",
    }
    assert environment.read_at_import(shared) == plain
    assert environment.read_at_import({"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}) != plain
    assert environment.read_at_import({"PYTHONPATH": "/x"}) != plain


def test_a_zygote_has_nothing_that_is_a_workloads_own() -> None:
    """What Airflow reads at import comes from the workload; a secret of it stays out, as does what it may not read."""
    container = {
        "PATH": "/bin",
        "AIRFLOW__A__B": "container",
        "AIRFLOW_HOME": "/gone",
        "AIRFLOW_CONN_X": "all",
    }
    workload = {
        "PATH": "/mine",
        "AIRFLOW__A__B": "workload",
        "AIRFLOW_CONN_X": "secret",
        "KEY": "secret",
        "LANG": "C",
    }
    assert environment.of_zygote(container, workload) == {
        "PATH": "/bin",
        "AIRFLOW__A__B": "workload",
        "AIRFLOW_CONN_X": "all",
        "LANG": "C",
    }


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ((), LOGS_MOUNT),
        ((LOGS_MOUNT,), LOGS_MOUNT),
        ((LOGS_MOUNT, FIRST_LOGS_MOUNT), LOGS_MOUNT),
        ((FIRST_LOGS_MOUNT,), FIRST_LOGS_MOUNT),
    ],
)
def test_logs_go_where_the_executor_has_mounted_their_volume(there: tuple[str, ...], found: str) -> None:
    """An executor that has not heard of a new deployment yet mounts the logs Volume where it was before; a folder
    `logs` of a user's own Volume at `/vol` is not taken for it."""
    assert logs_mount(lambda path: path in there) == found


def test_settings_of_the_host_are_below_those_of_the_container_and_of_the_workload() -> None:
    """Also those that are variables because no file can express them; without a home of the host's, nothing changes."""
    airflow = AirflowHome("/homes/abc", {"AIRFLOW__A__B": "host", "AIRFLOW__A__C": "host", "AIRFLOW__A__D": "host"})
    env = environment.of_workload(
        {"AIRFLOW__A__B": "container"}, {"AIRFLOW__A__C": "task"}, home="/own", folders={}, airflow=airflow
    )
    assert [env[f"AIRFLOW__A__{name}"] for name in "BCD"] == ["container", "task", "host"]
    assert env["AIRFLOW_HOME"] == "/homes/abc" and env[environment.BUNDLE_STORAGE] == "/own/dag_bundles"
    assert environment.of_workload({}, {}, home="/own", folders={})["AIRFLOW_HOME"] == "/own"


def test_another_home_is_another_zygote() -> None:
    """Airflow reads its settings and plugins at import, so tasks with different ones are never forked from the same."""
    one, two = (
        environment.of_workload({}, {}, home="/own", folders={}, airflow=AirflowHome(f"/homes/{name}"))
        for name in ("one", "two")
    )
    assert environment.read_at_import(one) != environment.read_at_import(two)
