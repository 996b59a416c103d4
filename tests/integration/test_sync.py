"""`modalflow sync`: DAG files on a Volume, as a command, and what the worker and `modalflow doctor` make of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.worker.environment import BUNDLE_LIST
from tests.command_line import CommandLine
from tests.integration.world import Work, World, deployed_worker
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

APP = "synced"

DAG = """
from airflow.sdk import dag, task

@task
def hello():
    print("hello from", open(__file__.replace("d.py", "who.txt")).read())

@dag(dag_id="d", schedule=None)
def made():
    hello()

made()
"""


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "d.py").write_text(DAG)
    (folder / "who.txt").write_text("one")
    return folder


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine, dags: Path) -> Iterator[World]:
    arguments = ("--dags-source", "volume", "--max-containers", "1", "--dags-bundle", f"mine={dags}")
    with deployed_worker(modalflow_cli, APP, *arguments) as world:
        yield world


def modalflow(world: World, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return world.modalflow_cli.run(*arguments, environ={**os.environ, **world.variables, **(env or {})})


def sync(world: World, dags: Path, *arguments: str) -> str:
    done = modalflow(world, "sync", "--app", APP, "--dags-bundle", f"mine={dags}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(world: World) -> Work:
    bundles = [{"name": "mine", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}}]
    work = world.task("hello", bundle="mine", env={BUNDLE_LIST: json.dumps(bundles)})
    work.ended()
    return work


def test_what_is_synced_is_what_the_next_task_runs(world: World, dags: Path) -> None:
    """From the deployment on, in a warm container, without another deployment; a dry run changes nothing."""
    assert "hello from one" in run(world).log()
    (dags / "who.txt").write_text("two")
    (dags / "new.py").write_text("# new")
    told = sync(world, dags, "--dry-run")
    assert "1 new, 1 changed; would upload 8 B" in told and "~ who.txt" in told and "Nothing was uploaded" in told
    assert "hello from one" in run(world).log()
    told = sync(world, dags)
    assert "1 new, 1 changed; uploaded 8 B" in told and "from now on" in told
    # A container checks for a new version once a second.
    wait_until(lambda: "hello from two" in run(world).log(), 20.0, "the new version", interval=0.5)
    (dags / "new.py").unlink()
    assert "1 deleted" in sync(world, dags)
    assert "no changes" in sync(world, dags)


def test_programs_read_what_was_done(world: World, dags: Path) -> None:
    """As JSON: what changed, how much was uploaded, and the version."""
    (dags / "who.txt").write_text("three")
    told: dict[str, Any] = json.loads(sync(world, dags, "--json"))
    [bundle] = told["bundles"]
    assert told["volume"] == f"{APP}-dags" and not told["dry_run"] and told["not_read_by_the_worker"] == []
    assert (bundle["changed"], bundle["uploaded_bytes"], bundle["files"]) == (["who.txt"], 5, 2)
    assert len(bundle["version"]) == 64


def test_what_cannot_be_synced_is_said_in_a_line(world: World, dags: Path, tmp_path: Path) -> None:
    """No folder, a link that leads out, and no bundle at all: each with what to do, and nothing half done."""
    done = modalflow(world, "sync", "--app", APP, "--dags-bundle", "mine=/no/such/folder")
    assert done.returncode == 1 and "/no/such/folder does not exist" in done.stderr
    (tmp_path / "link").symlink_to("/etc/passwd")
    done = modalflow(world, "sync", "--app", APP, "--dags-bundle", f"mine={tmp_path}")
    assert done.returncode == 1 and "outside of" in done.stderr and "Traceback" not in done.stderr
    done = modalflow(world, "sync", "--app", APP, env={BUNDLE_LIST: "[]", "AIRFLOW_HOME": str(tmp_path / "home")})
    assert done.returncode == 1 and "--dags-bundle NAME=FOLDER" in done.stderr
    assert "no changes" in sync(world, dags)


def test_the_doctor_sees_what_is_ahead_of_the_volume(world: World, dags: Path, tmp_path: Path) -> None:
    """Whether the files of this machine are those of the worker, and the command that mends it."""
    bundles = [{"name": "mine", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(dags)}}]
    env = {
        BUNDLE_LIST: json.dumps(bundles),
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": world.api.url,
    }

    def finding(name: str) -> dict[str, Any]:
        done = modalflow(world, "doctor", "--app", APP, "--json", env=env)
        findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        return next(each for each in findings if each["name"] == name)

    assert finding("DAG files of mine")["status"] == "ok"
    (dags / "ahead.py").write_text("")
    ahead = finding("DAG files of mine")
    assert ahead["status"] == "warn" and "1 new" in ahead["detail"] and "modalflow sync" in ahead["mend"]
    (dags / "ahead.py").unlink()
    assert finding("DAG bundle mine")["status"] == "ok", "and the container sees it"
