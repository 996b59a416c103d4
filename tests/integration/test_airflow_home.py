"""The Airflow home of tasks in real containers: published through the SDK, fetched, checked and used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import modal
import pytest

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.sealing import salt_of
from modalflow.airflow_home.store import HomeStore
from modalflow.bundles.files import VolumeFiles
from modalflow.names import HOMES_FOLDER, Names
from modalflow.protocol.messages import Deployment, State
from tests.command_line import CommandLine
from tests.inside import zygotes_in
from tests.integration.world import Work, World, deployed_worker

NAMES = Names("homes")
ODD = "  two spaces, #1; 100%\n\n  größe "


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, NAMES.app) as world:
        yield world


def deployment(world: World) -> Deployment:
    found = world.logs.deployment()
    assert found is not None
    return found


def publish(world: World, **values: Any) -> str:
    """Publish a home as an executor does, and return its id."""
    home = HostHome(**{"settings": {"acme": {"plain": "1"}}, "salt": salt_of("host")} | values)
    snapshot = home.snapshot(deployment(world).home_key)
    HomeStore(VolumeFiles(world.logs.volume)).publish(snapshot, home.contents)
    return snapshot.id


def found_by(work: Work) -> dict[str, Any]:
    """Return what the task printed."""
    entry = work.ended()
    assert entry.final_state == "success", work.log()
    lines = [json.loads(line)["event"] for line in work.log().splitlines()]
    found: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("home: "))[6:])
    return found


def task(world: World, home: str) -> Work:
    return world.task("prints_its_home", dag_file="home.py", home=home)


def test_a_task_has_the_settings_and_files_that_the_host_published(world: World) -> None:
    """Also the secret ones, and those that no configuration file can express; not the key to the secret ones.

    The container was there before: its mount of the Volume does not show what was published since.
    """
    container = world.command("true").ended().container_id
    id = publish(
        world,
        settings={"acme": {"plain": "1", "odd": ODD}},
        secret={"acme": {"secret": "hunter2"}},
        contents={"plugins/acme.py": b"ACME = 1\n"},
    )
    work = task(world, id)
    found = found_by(work)
    assert work.ended().container_id == container
    assert found["settings"] == {"plain": "1", "secret": "hunter2", "odd": ODD}
    assert found["folder"].endswith(id) and found["files"] == [f"{found['folder']}/plugins/acme.py"]
    assert found["variables"] == ["AIRFLOW__ACME__ODD"]


def test_another_configuration_is_another_home_and_another_zygote(world: World) -> None:
    """What is published later counts for later tasks; a task without a home has the container's own."""
    one, two = publish(world), publish(world, settings={"acme": {"plain": "2"}})
    first, second, third = task(world, one), task(world, two), task(world, "")
    assert [found_by(work)["settings"]["plain"] for work in (first, second, third)] == ["1", "2", None]


def test_a_container_starts_with_the_newest_home(world: World) -> None:
    """Its zygote has imported Airflow with this home before there is a task, and the first task is forked from it."""
    fresh = world.deploy("--app", NAMES.app)
    id = publish(fresh)
    container = fresh.command("true").ended().container_id
    (zygote,) = zygotes_in(container)
    work = task(fresh, id)
    assert found_by(work)["folder"].endswith(id)
    assert work.ended().container_id == container and zygotes_in(container) == [zygote]


@pytest.mark.parametrize("home", ["0" * 64, "../../etc"])
def test_a_home_that_is_not_there_refuses_the_work(world: World, home: str) -> None:
    """Before any code of the task runs, with a reason that says what to do."""
    work = task(world, home)
    entry = work.ended()
    assert entry.state is State.FAILED and entry.cause == "home-unavailable" and entry.final_state is None
    assert "configuration of the Airflow host" in (entry.reason or "") and (entry.reason or "") in work.log()


def test_a_home_that_was_changed_on_the_volume_refuses_the_work(world: World) -> None:
    """A container that can write to the Volume cannot give another one its settings."""
    id = publish(world, settings={"acme": {"plain": "original"}})
    path = f"{HOMES_FOLDER}/v1/snapshots/{id}"
    files = VolumeFiles(world.logs.volume)
    files.put({path: files.read(path).replace(b"original", b"tampered")})
    entry = task(world, id).ended()
    assert entry.state is State.FAILED and "another content" in (entry.reason or "")


def test_secret_settings_for_another_key_refuse_the_work(world: World) -> None:
    """The reason names the key's id and the command that fixes it, and no setting."""
    from modalflow.airflow_home.sealing import KeyPair

    home = HostHome({}, {"acme": {"secret": "hunter2"}}, salt=salt_of("host"))
    snapshot = home.snapshot(KeyPair.new().public)
    HomeStore(VolumeFiles(world.logs.volume)).publish(snapshot, {})
    entry = task(world, snapshot.id).ended()
    assert entry.state is State.FAILED and "cannot decrypt" in (entry.reason or "")
    assert "hunter2" not in (entry.reason or "")


def test_a_raw_command_has_no_home(world: World) -> None:
    """A command has nothing to do with Airflow, and does not get the key either."""
    work = world.command("echo home is $AIRFLOW_HOME. key is $MODALFLOW_HOME_KEY.")
    work.ended()
    assert "home is . key is ." in work.log()


def test_the_key_pair_is_made_once(world: World) -> None:
    """What was published before a deployment can still be read after it."""
    before = deployment(world).home_key
    world.deploy("--app", NAMES.app)
    assert before and deployment(world).home_key == before
    assert modal.Secret.from_name(NAMES.home_key, client=world.client).hydrate()
