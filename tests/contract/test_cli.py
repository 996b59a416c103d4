"""Modal's own command line, driven as a user would: each command does what it says and prints what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import APPS
from tests.support import wait_until

pytestmark = pytest.mark.skipif(
    tuple(map(int, modal.__version__.split(".")[:2])) < (1, 6), reason="the commands are those of modal 1.6"
)

Cli = Callable[..., str]
APP = str(APPS / "cli_app.py")


def run(local: LocalModal, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modal", *arguments],
        env={**os.environ, **local.env, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def cli(local: LocalModal) -> Cli:
    def call(*arguments: str) -> str:
        done = run(local, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def deployed(cli: Cli) -> Iterator[str]:
    """The name of an app that was deployed twice."""
    name = f"test-cli-{uuid.uuid4().hex[:8]}"
    assert "App deployed" in cli("deploy", "--name", name, APP)
    assert "App deployed" in cli("deploy", "--name", name, "--tag", "second", APP)
    yield name
    cli("app", "stop", "--yes", name)


def test_run_prints_what_the_app_prints(cli: Cli) -> None:
    """``modal run`` shows what local and remote code print, and that the app is over."""
    said = cli("run", APP, "--n", "4")
    for expected in ("adding 4 and 2", "the sum is 6", "and many are [2, 3, 4]", "App completed"):
        assert expected in said, said


def test_a_detached_run_ends_with_its_last_call(cli: Cli) -> None:
    """A detached app whose entrypoint is done and that has nothing to do ends, without a wait for its logs."""
    done = cli("run", "--detach", APP + "::add", "--a", "5")
    assert "adding 5 and 2" in done
    assert "App completed" in done
    assert not [app for app in json.loads(cli("app", "list", "--json")) if "detached" in app["state"]]


def test_apps_and_their_versions(cli: Cli, local: LocalModal, client: modal.Client, deployed: str) -> None:
    """list, info, history, rollback, rollover and logs tell of an app what was done with it."""
    listed = [app for app in json.loads(cli("app", "list", "--json")) if app["description"] == deployed]
    assert [app["state"] for app in listed] == ["deployed"]
    assert "add" in cli("app", "info", deployed)
    assert "successful" in cli("app", "rollback", deployed, "v1")
    assert "completed" in cli("app", "rollover", deployed)
    versions = [entry["version"] for entry in json.loads(cli("app", "history", deployed, "--json"))]
    assert versions == ["v4", "v3", "v2", "v1"]
    modal.Function.from_name(deployed, "add", client=client).remote(20)
    assert "adding 20 and 2" in cli("app", "logs", deployed, "--since", "1h")
    missing = run(local, "app", "logs", deployed[:-1])
    assert missing.returncode != 0
    assert deployed in missing.stderr, "the command line suggests the name that was meant"


def test_containers(cli: Cli, client: modal.Client, deployed: str) -> None:
    """A container is listed, its log is shown, and it can be stopped."""
    call = modal.Function.from_name(deployed, "wait", client=client).spawn(60)

    def mine() -> list[dict[str, Any]]:
        return [c for c in json.loads(cli("container", "list", "--json")) if c["app_name"] == deployed]

    [container] = wait_until(mine, timeout=60, what="the container")
    wait_until(lambda: "waiting" in cli("container", "logs", container["container_id"]), timeout=60)
    cli("container", "stop", "--yes", container["container_id"])
    wait_until(lambda: container["container_id"] not in cli("container", "list", "--json"), timeout=60)
    call.cancel(terminate_containers=True)


def test_a_function(cli: Cli, deployed: str) -> None:
    """A function's definition is shown, its autoscaler told and shown."""
    assert json.loads(cli("function", "info", f"{deployed}/add", "--json"))["name"] == "add"
    cli("function", "autoscaler", "update", f"{deployed}/add", "--max-containers", "2")
    assert json.loads(cli("function", "info", f"{deployed}/add", "--json"))["max_containers"] == 2


def test_volumes(cli: Cli, local: LocalModal, name: str, tmp_path: Path) -> None:
    """Files go into a volume, are listed, copied, fetched and removed."""
    (tmp_path / "hello.txt").write_text("hello\n")
    cli("volume", "create", name)
    cli("volume", "put", name, str(tmp_path / "hello.txt"), "/a/b.txt")
    cli("volume", "cp", name, "/a/b.txt", "/a/c.txt")
    cli("volume", "rm", name, "/a/b.txt")
    [entry] = json.loads(cli("volume", "ls", name, "/a", "--json"))
    assert (entry["filename"], entry["size"]) == ("a/c.txt", 6)
    assert cli("volume", "get", name, "/a/c.txt", "-").startswith("hello\n")
    cli("volume", "rename", "--yes", name, f"{name}-2")
    assert f"{name}-2" in [volume["name"] for volume in json.loads(cli("volume", "list", "--json"))]
    cli("volume", "delete", "--yes", f"{name}-2")
    assert "not found" in run(local, "volume", "ls", name).stderr


def test_dicts_and_queues(cli: Cli, client: modal.Client, name: str) -> None:
    """What a Dict and a Queue hold is shown, and goes with them."""
    cli("dict", "create", name)
    modal.Dict.from_name(name, client=client)["key"] = {"a": 1}
    assert json.loads(cli("dict", "items", name, "--json")) == [{"key": "key", "value": {"a": 1}}]
    assert cli("dict", "get", name, "key").strip() == "{'a': 1}"
    cli("dict", "delete", "--yes", name)
    cli("queue", "create", name)
    modal.Queue.from_name(name, client=client).put_many([1, 2])
    assert cli("queue", "peek", name, "5").split() == ["1", "2"]
    assert cli("queue", "len", name).strip() == "2"
    [queue] = [q for q in json.loads(cli("queue", "list", "--json")) if q["name"] == name]
    assert (queue["partitions"], queue["total_size"]) == (1, 2)
    cli("queue", "delete", "--yes", name)


def test_secrets_environments_and_the_token(cli: Cli, local: LocalModal, name: str) -> None:
    """Secrets and environments are made, listed and deleted; the token tells whose it is."""
    cli("secret", "create", name, "A=1")
    assert name in [secret["name"] for secret in json.loads(cli("secret", "list", "--json"))]
    cli("secret", "delete", "--yes", name)
    cli("environment", "create", name)
    assert name in [env["name"] for env in json.loads(cli("environment", "list", "--json"))]
    cli("environment", "roles", "list", name)
    cli("environment", "delete", "--yes", name)
    assert local.env["MODAL_TOKEN_ID"] in cli("token", "info")
