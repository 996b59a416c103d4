"""A DAG file is named by its bundle, which the worker has as well."""

from __future__ import annotations

import json
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.workloads import BundleInfo, ExecuteTask

from modalflow.executor.workloads import in_its_bundle, local_bundles

LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
BUNDLES = {"main": PurePath("/srv/dags"), "more": PurePath("/srv/more")}


def workload(path: str) -> Any:
    """As far as the place of its DAG file goes, as ``dag.test`` makes it."""
    bundle = BundleInfo(name="dags-folder")
    return ExecuteTask.model_construct(dag_rel_path=PurePath(path), bundle_info=bundle, token="")


def test_an_absolute_path_becomes_one_in_its_bundle() -> None:
    """What ``dag.test(use_executor=True)`` says is translated, and survives being serialised."""
    said = in_its_bundle(workload("/srv/more/teams/red.py"), BUNDLES)
    assert (said.bundle_info.name, str(said.dag_rel_path)) == ("more", "teams/red.py")


@pytest.mark.parametrize("path", ["teams/red.py", "/elsewhere/red.py"])
def test_any_other_path_stays(path: str) -> None:
    """A scheduler's path is in the bundle that it names; a file outside of all bundles is Airflow's to refuse."""
    before = workload(path)
    assert in_its_bundle(before, BUNDLES) is before


def test_what_has_no_dag_file_stays() -> None:
    """A connection test, for one."""
    before = SimpleNamespace(connection_id="c")
    assert in_its_bundle(before, BUNDLES) is before


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (json.dumps([{"name": "a", "classpath": LOCAL, "kwargs": {"path": "/x"}}]), {"a": PurePath("/x")}),
        (json.dumps([{"name": "a", "classpath": LOCAL, "kwargs": {}}]), {"a": PurePath("/dags")}),
        (json.dumps([{"name": "a", "classpath": "some.GitDagBundle"}, 7]), {}),
        ("{", {}),
        ("7", {}),
    ],
)
def test_local_bundles_are_those_with_a_folder(listed: str, found: dict[str, PurePath]) -> None:
    """Without a folder of its own a local bundle is the dags folder; other kinds, and malformed lists, say nothing."""
    assert local_bundles(listed, "/dags") == found
