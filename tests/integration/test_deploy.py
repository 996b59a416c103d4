"""`modalflow deploy`, as a command, to the local control plane, with the real SDK."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import modal
import pytest

from modalflow import __version__
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.control_plane import ControlPlane
from modalflow.emulator.local import LocalModal
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEFAULT_PROFILE, Names
from modalflow.protocol.messages import PROTOCOL, Kind, Submission
from modalflow.worker.environment import BUNDLE_LIST
from tests.command_line import CommandLine
from tests.sdk import client_of


class Deploy(Protocol):
    def __call__(self, *arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal() as local:
        yield local


@pytest.fixture(scope="module")
def client(local: LocalModal) -> Iterator[modal.Client]:
    with client_of(local.url, local.env) as client:
        yield client


@pytest.fixture
def deploy(modalflow_cli: CommandLine) -> Deploy:
    """``modalflow deploy …``, with variables above the machine's."""
    return lambda *arguments, env: modalflow_cli.run("deploy", *arguments, environ={**os.environ, **env})


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An Airflow home with nothing in it: no test sees the developer's own."""
    return {"AIRFLOW_HOME": str(tmp_path / "airflow")}


def dags(folder: Path, content: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dag.py").write_text(content)
    return folder


def in_container(client: modal.Client, names: Names, command: str) -> str:
    """Run a raw command in the deployed worker and return what it printed."""
    function = modal.Function.from_name(names.app, names.function(DEFAULT_PROFILE), client=client)
    work_id = os.urandom(8).hex()
    submission = Submission(work_id, Kind.COMMAND, f"logs/{work_id}", "p", "test", command=command)
    function.spawn(submission.to_wire()).get(timeout=60)
    [text] = LogVolume(ControlPlane(client, None), names).read(submission.log_path)[1]
    lines = map(json.loads, text.splitlines())
    return "\n".join(line["event"] for line in lines if line.get("logger") == "task.stdout")


def test_what_is_deployed_is_recorded_and_told(
    deploy: Deploy, local: LocalModal, client: modal.Client, home: dict[str, str], tmp_path: Path
) -> None:
    """The record on the logs Volume and the lines on the terminal say what was deployed, with which bundles."""
    names = Names("recorded")
    bundle = dags(tmp_path / "dags")
    done = deploy("--app", names.app, "--dags-bundle", f"mine={bundle}", env=local.env | home)
    assert done.returncode == 0, done.stderr
    assert "Deployed recorded" in done.stdout and "DAG bundle mine" in done.stdout and "Next:" in done.stdout
    deployment = LogVolume(ControlPlane(client, None), names).deployment()
    assert deployment is not None
    assert (deployment.version, deployment.protocol) == (__version__, PROTOCOL)
    assert deployment.bundles == {"mine": "/opt/modalflow/bundles/mine"}
    assert modal.Dict.from_name(names.ledger, client=client).len() == 0
    assert modal.Queue.from_name(names.events, client=client).len(total=True) == 0


def test_the_local_bundles_of_airflow_are_baked_by_default(
    deploy: Deploy, local: LocalModal, client: modal.Client, home: dict[str, str], tmp_path: Path
) -> None:
    """Without options, every local bundle that exists goes into the image; a missing one is told, and is no error."""
    names = Names("configured")
    bundles = [
        {"name": "here", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(dags(tmp_path / "here", "# mine"))}},
        {"name": "gone", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(tmp_path / "gone")}},
    ]
    done = deploy("--app", names.app, env=local.env | home | {BUNDLE_LIST: json.dumps(bundles)})
    assert done.returncode == 0, done.stderr
    assert "'gone' is not deployed" in done.stdout
    assert in_container(client, names, "cat /opt/modalflow/bundles/here/dag.py") == "# mine"


def test_deploying_again_replaces_the_dags(
    deploy: Deploy, local: LocalModal, client: modal.Client, home: dict[str, str], tmp_path: Path
) -> None:
    """What runs after a second deployment sees the second version of the DAGs, and none of the caches beside them.

    The last line of the output says what follows, in either case.
    """
    names = Names("again")
    for content, next_step in (("# one", "Next: start Airflow"), ("# two", "Running schedulers with app again use")):
        bundle = dags(tmp_path / "dags", content)
        dags(bundle / "__pycache__", "cached")
        done = deploy("--app", names.app, "--dags-bundle", f"b={bundle}", env=local.env | home)
        assert done.returncode == 0, done.stderr
        assert in_container(client, names, "cat $(find /opt/modalflow/bundles -type f)") == content
        # A hint to start Airflow would be false for a user with a running one.
        assert done.stdout.splitlines()[-1].startswith(next_step)


def test_a_missing_bundle_folder_is_an_error_that_names_it(
    deploy: Deploy, local: LocalModal, home: dict[str, str]
) -> None:
    """A folder that was asked for and is not there stops the deployment before anything reaches Modal."""
    done = deploy("--dags-bundle", "mine=/no/such/folder", env=local.env | home)
    assert done.returncode == 1
    assert "/no/such/folder" in done.stderr and "'mine'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("given", ["mine", "=x", "mine=", "a/b=x"])
def test_a_malformed_bundle_option_says_what_was_expected(deploy: Deploy, given: str) -> None:
    """The error repeats what was given and shows an example."""
    done = deploy("--dags-bundle", given, env={})
    assert done.returncode == 2 and "NAME=FOLDER" in done.stderr and repr(given) in done.stderr


def test_wrong_credentials_are_told_as_such(
    deploy: Deploy, local: LocalModal, home: dict[str, str], tmp_path: Path
) -> None:
    """Credentials that the control plane refuses: one line says so and how to get others."""
    wrong = local.env | home | {"MODAL_TOKEN_SECRET": "as-wrong"}
    done = deploy("--dags-bundle", f"b={dags(tmp_path / 'dags')}", env=wrong)
    assert done.returncode == 1
    assert "refused the credentials" in done.stderr and "MODAL_TOKEN_SECRET" in done.stderr
    assert "as-wrong" not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_no_credentials_are_told_as_such(
    deploy: Deploy, local: LocalModal, home: dict[str, str], tmp_path: Path
) -> None:
    """Without any credentials the error names the variables to set."""
    none = local.env | home | {"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}
    done = deploy("--dags-bundle", f"b={dags(tmp_path / 'dags')}", env=none)
    assert done.returncode == 1
    assert "MODAL_TOKEN_ID" in done.stderr and "Traceback" not in done.stderr


def test_the_connection_of_airflow_has_the_credentials(
    deploy: Deploy, local: LocalModal, home: dict[str, str], tmp_path: Path
) -> None:
    """Deploying uses what the executor will use: the Airflow connection, and the app name of its settings."""
    login = f"modal://{local.env['MODAL_TOKEN_ID']}:{local.env['MODAL_TOKEN_SECRET']}@"
    variables = {name: value for name, value in local.env.items() if not name.startswith("MODAL_TOKEN")}
    configured = {"AIRFLOW_CONN_MODAL_DEFAULT": login, "AIRFLOW__MODAL_EXECUTOR__APP_NAME": "from-settings"}
    done = deploy("--dags-bundle", f"b={dags(tmp_path / 'dags')}", env=variables | home | configured)
    assert done.returncode == 0, done.stderr
    assert "Deployed from-settings" in done.stdout
