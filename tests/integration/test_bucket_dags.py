"""DAG bundles in a bucket that every container mounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.emulator.options import Options
from modalflow.worker.environment import BUNDLE_LIST
from tests.command_line import CommandLine
from tests.integration.test_sync import DAG
from tests.integration.world import deployed_worker

pytestmark = pytest.mark.timeout(300)


def test_a_task_runs_what_is_in_the_bucket(modalflow_cli: CommandLine, tmp_path: Path) -> None:
    """Below the prefix, in the folder that was named; a change there needs no command, and a missing folder is said."""
    folder = tmp_path / "bucket/airflow/team"
    folder.mkdir(parents=True)
    (folder / "d.py").write_text(DAG)
    (folder / "who.txt").write_text("one")
    arguments = [
        *("--dags-source", "cloud-bucket", "--bucket-name", "dags", "--bucket-prefix", "airflow"),
        *("--max-containers", "1", "--dags-bundle", "mine=team", "--dags-bundle", "gone=nowhere"),
    ]
    options = Options(buckets=[f"dags={tmp_path / 'bucket'}"])
    with deployed_worker(modalflow_cli, "buckets", *arguments, modal_options=options, bundle="tests=tests") as world:

        def run(name: str) -> str:
            bundles = [{"name": name, "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}}]
            work = world.task("hello", bundle=name, env={BUNDLE_LIST: json.dumps(bundles)})
            work.ended()
            return work.log()

        assert "hello from one" in run("mine")
        (folder / "who.txt").write_text("two")
        assert "hello from two" in run("mine")
        assert "/opt/modalflow/dags/nowhere" in run("gone")
