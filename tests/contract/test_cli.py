"""Modal's own command line, driven as a user would: each command does what it says and prints what is there."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from modalflow.emulator.local import LocalModal
from tests.command_line import CommandLine, command, variables
from tests.contract.deploying import APPS
from tests.support import wait_until

pytestmark = pytest.mark.skipif(
    tuple(map(int, modal.__version__.split(".")[:2])) < (1, 6), reason="the commands are those of modal 1.6"
)

APP = str(APPS / "cli_app.py")


@pytest.fixture(scope="module")
def cli(local: LocalModal) -> Iterator[CommandLine]:
    with CommandLine(local.env) as command_line:
        yield command_line


@pytest.fixture(scope="module")
def deployed(cli: CommandLine) -> Iterator[str]:
    """The name of an app that was deployed twice."""
    name = f"test-cli-{uuid.uuid4().hex[:8]}"
    assert "App deployed" in cli("deploy", "--name", name, APP)
    assert "App deployed" in cli("deploy", "--name", name, "--tag", "second", APP)
    yield name
    cli("app", "stop", "--yes", name)


def test_run_prints_what_the_app_prints(local: LocalModal) -> None:
    """``modal run`` shows what local and remote code print, and that the app is over."""
    said = subprocess.run(
        command("run", APP, "--n", "4"), env=variables(local.env), capture_output=True, text=True, check=True
    ).stdout
    for expected in ("adding 4 and 2", "the sum is 6", "and many are [2, 3, 4]", "App completed"):
        assert expected in said, said


def test_a_detached_run_ends_with_its_last_call(cli: CommandLine) -> None:
    """A detached app whose entrypoint is done and that has nothing to do ends, without a wait for its logs."""
    done = cli("run", "--detach", APP + "::add", "--a", "5")
    assert "adding 5 and 2" in done
    assert "App completed" in done
    assert not [app for app in json.loads(cli("app", "list", "--json")) if "detached" in app["state"]]


def test_apps_and_their_versions(cli: CommandLine, client: modal.Client, deployed: str) -> None:
    """list, info, history, rollback, rollover and logs tell of an app what was done with it."""
    listed = [app for app in json.loads(cli("app", "list", "--json")) if app["description"] == deployed]
    assert [app["state"] for app in listed] == ["deployed"]
    assert "add" in cli("app", "info", deployed)
    assert "successful" in cli("app", "rollback", deployed, "v1")
    assert "completed" in cli("app", "rollover", deployed)
    versions = [entry["version"] for entry in json.loads(cli("app", "history", deployed, "--json"))]
    assert versions == ["v4", "v3", "v2", "v1"]
    modal.Function.from_name(deployed, "add", client=client).remote(20)
    missing = cli.run("app", "logs", deployed[:-1])
    assert missing.returncode != 0
    assert deployed in missing.stderr, "the command line suggests the name that was meant"


def test_logs_and_containers(cli: CommandLine, local: LocalModal, client: modal.Client, deployed: str) -> None:
    """An app's logs are shown by time, number, text, call and output; a container's as long as it lives, and after."""
    add, wait = (modal.Function.from_name(deployed, tag, client=client) for tag in ("add", "wait"))
    first, second = add.spawn(31), add.spawn(32)
    assert (first.get(), second.get()) == (33, 34)
    both = "adding 31 and 2\nadding 32 and 2\n"
    assert cli("app", "logs", deployed, "--tail", "2") == both
    assert cli("app", "logs", deployed, "--since", "1h", "--search", "32 and") == "adding 32 and 2\n"
    assert cli("app", "logs", deployed, "--since", "2h", "--until", "1h") == ""
    assert cli("app", "logs", deployed, "--source", "stderr", "--tail", "2") == ""
    of_one = cli("app", "logs", deployed, "--function-call", first.object_id, "--timestamps", "--show-container-id")
    assert re.fullmatch(r"20\S+ \S+ ta-\w+ +adding 31 and 2\n", of_one), of_one
    assert cli("app", "logs", deployed, "--function", add.object_id, "--tail", "2") == both
    assert cli.run("app", "logs", deployed, "--follow", "--tail", "3").returncode == 2

    waiting = wait.spawn(60)
    [container] = wait_until(lambda: _containers_with(cli, deployed, "waiting"), timeout=60, what="a line in its log")
    with subprocess.Popen(
        command("container", "logs", "--follow", container),
        env=variables(local.env),
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "waiting\n"
        cli("container", "stop", "--yes", container)
        assert follower.wait(60) == 0, "it ends with the container"
    waiting.cancel(terminate_containers=True)
    assert cli("container", "logs", "--all", container).startswith("waiting\n")
    assert container not in cli("container", "list", "--json")
    assert "already stopped" in cli.run("container", "stop", "--yes", container).stderr


def _containers_with(cli: CommandLine, app: str, text: str) -> list[str]:
    """The app's containers that printed a text."""
    ids = [c["container_id"] for c in json.loads(cli("container", "list", "--json")) if c["app_name"] == app]
    return [each for each in ids if text in cli("container", "logs", each)]


def test_a_function(cli: CommandLine, deployed: str) -> None:
    """A function's definition is shown, its autoscaler told and shown."""
    assert json.loads(cli("function", "info", f"{deployed}/add", "--json"))["name"] == "add"
    cli("function", "autoscaler", "update", f"{deployed}/add", "--max-containers", "2")
    assert json.loads(cli("function", "info", f"{deployed}/add", "--json"))["max_containers"] == 2


def test_volumes(cli: CommandLine, name: str, tmp_path: Path) -> None:
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
    assert "not found" in cli.run("volume", "ls", name).stderr


def test_dicts_and_queues(cli: CommandLine, client: modal.Client, name: str) -> None:
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


def test_secrets_environments_and_the_token(cli: CommandLine, local: LocalModal, name: str) -> None:
    """Secrets and environments are made, listed and deleted; the token tells whose it is."""
    cli("secret", "create", name, "A=1")
    assert name in [secret["name"] for secret in json.loads(cli("secret", "list", "--json"))]
    cli("secret", "delete", "--yes", name)
    cli("environment", "create", name)
    assert name in [env["name"] for env in json.loads(cli("environment", "list", "--json"))]
    cli("environment", "roles", "list", name)
    cli("environment", "delete", "--yes", name)
    assert local.env["MODAL_TOKEN_ID"] in cli("token", "info")


def test_a_deployment_names_what_has_no_effect(cli: CommandLine) -> None:
    """Below each function, once: what it asks for and does not get here."""
    name = f"test-cli-{uuid.uuid4().hex[:8]}"
    said = cli("deploy", "--name", name, str(APPS / "placed_app.py"))
    cli("app", "stop", "--yes", name)
    shown = " ".join(re.sub(r"[│├└─]", " ", said).split())
    for line in (
        "placed asks for i6pn and runs without it",
        "placed asks for cloud=aws and runs on this machine",
        "placed asks for region=us-east, eu and runs on this machine",
        "placed asks for a limit of 2000 millicores and may use all cores",
        "placed has the experimental option vroom=1",
        "Placed.* asks for memory snapshots and starts without them",
        "Placed.* asks for routing_region=us-west",
    ):
        assert shown.count(line) == 1, said
    assert shown.count(" asks for ") == 6, said
