"""Deploying, redeploying, running, stopping and listing apps, with the SDK and with Modal's own command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
from modal.exception import NotFoundError, RemoteError

from modalflow.emulator.local import LocalModal
from tests.command_line import CommandLine
from tests.contract.deploying import APPS, Deployed, load, stop_app
from tests.contract.inspecting import containers
from tests.support import wait_until


@pytest.fixture
def compute(client: modal.Client, name: str) -> Iterator[Deployed]:
    deployed = Deployed("compute_app", name, client)
    yield deployed
    deployed.stop()


@pytest.fixture(scope="module")
def cli(local: LocalModal) -> Iterator[CommandLine]:
    with CommandLine({**local.env, "PYTHONPATH": str(APPS)}) as command_line:
        yield command_line


def test_redeploying_replaces_containers(compute: Deployed) -> None:
    """After a redeployment calls run in new containers, under the same function id and app."""
    before, function_id = compute.call("where"), compute.function("where").hydrate().object_id
    compute.deploy()
    after = compute.call("where")
    assert after["container"] != before["container"]
    assert compute.function("where").hydrate().object_id == function_id
    wait_until(lambda: before["container"] not in containers(compute.client), what="the old container's end")


def test_redeploying_lets_calls_finish(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """A call that runs during a redeployment ends as if nothing had happened."""
    call = compute.function("sleep").spawn(3.0, name)
    old = wait_until(lambda: notes.get("container"), timeout=30, what="the call's start")
    compute.deploy()
    assert compute.call("sleep", 0, name) != old
    assert call.get(timeout=60) == old


def test_handles_survive_a_redeployment(compute: Deployed) -> None:
    """A function looked up before a redeployment is called as before, with options as well."""
    function = compute.function("add")
    changed = function.with_options(timeout=50)
    assert (function.remote(1, 2), changed.remote(3, 4)) == (3, 7)
    compute.deploy()
    assert (function.remote(1, 2), changed.remote(3, 4)) == (3, 7)


def test_stopping_an_app_ends_its_calls(compute: Deployed, notes: modal.Dict, name: str) -> None:
    """A stopped app has no containers, its calls fail and say why, its functions are not found."""
    function = compute.function("sleep").hydrate()
    running, waiting = function.spawn(120, name), compute.function("one_at_a_time").spawn(60)
    wait_until(lambda: notes.get("container"), timeout=30, what="the call's start")
    compute.stop()
    for call in (running, waiting):
        with pytest.raises(RemoteError, match="was stopped"):
            call.get(timeout=20)
    wait_until(lambda: not containers(compute.client, compute.name), what="the end of its containers")
    with pytest.raises(NotFoundError):
        function.spawn(1, name)
    with pytest.raises(NotFoundError):
        compute.function("add").hydrate()
    compute.deploy()
    assert compute.call("add", 1, 1) == 2


def test_an_ephemeral_app_runs_while_its_client_does(client: modal.Client) -> None:
    """app.run() has its functions for the length of the block, and no containers afterwards."""
    module = load("compute_app")
    with module.app.run(client=client):
        assert module.add.remote(20, 22) == 42
        app_id = module.app.app_id
    wait_until(lambda: not containers(client, "compute"), what="the end of its containers")
    assert app_id


def test_lookup_of_an_app(client: modal.Client, name: str) -> None:
    """App.lookup finds an app by name, makes it if told to, and else is NotFoundError."""
    with pytest.raises(NotFoundError):
        modal.App.lookup(name, client=client)
    made = modal.App.lookup(name, create_if_missing=True, client=client)
    assert modal.App.lookup(name, client=client).app_id == made.app_id
    stop_app(name, client)


def test_the_command_line_lists_and_stops_apps(compute: Deployed, cli: CommandLine) -> None:
    """modal app list, container list, app history and app stop work."""
    compute.call("add", 1, 2)
    listed = {app["description"]: app for app in json.loads(cli("app", "list", "--json"))}
    assert listed[compute.name]["state"] == "deployed"
    assert listed[compute.name]["tasks"] == "1"
    assert compute.name in cli("container", "list", "--json")
    assert "v1" in cli("app", "history", compute.name)
    cli("app", "stop", "--yes", compute.name)
    wait_until(lambda: not containers(compute.client, compute.name), what="the end of its containers")
    compute.deploy()


def test_the_command_line_deploys_and_runs(cli: CommandLine, client: modal.Client, name: str) -> None:
    """modal deploy deploys a file; modal run runs one of its functions and shows what it printed."""
    cli("deploy", "--name", name, str(APPS / "compute_app.py"))
    assert modal.Function.from_name(name, "add", client=client).remote(1, 2) == 3
    stop_app(name, client)
    said = cli("run", f"{Path(APPS / 'compute_app.py')}::prints", "--lines", "3")
    assert "line 2 on stdout" in said
