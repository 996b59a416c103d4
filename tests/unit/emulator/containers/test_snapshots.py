"""Which container a memory snapshot is taken of, and which ones are restored from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from modal_proto import api_pb2

from modalflow.emulator.containers.launch import snapshots
from modalflow.emulator.containers.launch.snapshots import Plan, Snapshots
from modalflow.emulator.processes.sandboxes.inside import PENDING_STATE, RESTORED
from modalflow.emulator.processes.sandboxes.supervision import FAILED, FINISHED
from modalflow.emulator.state.state_dir import StateDir


class Function:
    """The part of a function that counts here."""

    object_id, tag, building = "fu-1", "f", None


class Process:
    """A process that is asked for its checkpoint."""

    def __init__(self) -> None:
        self.checkpoints = 0

    def checkpoint(self) -> None:
        self.checkpoints += 1


class Container:
    """The part of a container that counts here."""

    def __init__(self, number: int, **spec: Any) -> None:
        self.container_id, self.is_in_gvisor, self.function = f"ta-{number}", True, Function()
        self.spec = api_pb2.Function(**{"checkpointing_enabled": True, **spec})
        self.process = Process()


class Surroundings:
    """Sockets, networks and the log."""

    def __init__(self) -> None:
        self.connected, self.paused, self.notes = False, [""], [""]

    def is_connected(self, _container_id: str) -> bool:
        return self.connected

    async def gateway(self, _container_id: str, _folder: Path) -> str:
        return "all"

    async def pause(self, container_id: str) -> None:
        self.paused.append(container_id)

    def note(self, _function: Function, text: str) -> None:
        self.notes.append(text)


class World:
    """The snapshots, and containers that are planned."""

    def __init__(self, root: Path) -> None:
        self.root, self.surroundings = root, Surroundings()
        around: Any = self.surroundings
        self.snapshots = Snapshots(StateDir(root / "state"), around, around, around)

    async def plan(self, container: Any, **variables: str) -> Plan | None:
        folder = self.root / container.container_id
        folder.mkdir()
        arguments = api_pb2.ContainerArguments(task_id=container.container_id, function_def=container.spec)
        own = {"MODAL_TASK_ID": container.container_id, "MODAL_SERVER_URL": "unix://s"}
        own |= {"MODAL_CONTAINER_ARGUMENTS_PATH": str(folder)}
        plan = await self.snapshots.plan(container, arguments, own | variables, folder)
        assert bool(arguments.checkpoint_id) == (plan is not None and not plan.snapshot.exists)
        return plan


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_first_container_makes_what_others_use(world: World) -> None:
    """One container at a time is snapshotted; those that start meanwhile have no part in it, later ones are restored
    with their own identity."""
    first = await world.plan(Container(1))
    assert first is not None and not first.snapshot.exists
    assert await world.plan(Container(2)) is None
    (first.snapshot.folder / FINISHED).mkdir()
    later = await world.plan(Container(3))
    assert later is not None and later.snapshot.exists and later.snapshot.folder == first.snapshot.folder
    identity = json.loads((later.state / PENDING_STATE).read_text())
    assert identity["task_id"] == "ta-3" and identity["container_arguments_path"].endswith("ta-3")


async def test_other_content_has_another_snapshot(world: World) -> None:
    """A changed definition or variable means a new one, and the old one goes."""
    first = await world.plan(Container(1))
    assert first is not None
    (first.snapshot.folder / FINISHED).mkdir()
    world.snapshots.ended("ta-1")
    for number, (spec, variables) in enumerate([({"timeout_secs": 7}, {}), ({}, {"A": "1"})], 2):
        plan = await world.plan(Container(number, **spec), **variables)
        assert plan is not None and not plan.snapshot.exists and plan.snapshot.folder != first.snapshot.folder
        assert not first.snapshot.folder.exists()


async def test_an_attempt_that_failed_is_not_repeated(world: World) -> None:
    """But one is, if its container ended for a reason of its own."""
    assert await world.plan(Container(1)) is not None
    world.snapshots.ended("ta-1")
    again = await world.plan(Container(2))
    assert again is not None
    (again.snapshot.folder / FAILED).touch()
    world.snapshots.ended("ta-2")
    assert await world.plan(Container(3)) is None


async def test_most_containers_have_none(world: World) -> None:
    """They need gVisor, and a function that asks for it."""
    elsewhere = Container(1)
    elsewhere.is_in_gvisor = False
    assert await world.plan(elsewhere) is None
    assert await world.plan(Container(2, checkpointing_enabled=False)) is None


async def test_an_open_connection_prevents_a_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor would end the container: it goes on without one, and the log has the reason."""
    monkeypatch.setattr(snapshots, "CLOSING_PATIENCE", 0.05)
    world.surroundings.connected = True
    container: Any = Container(1)
    plan = await world.plan(container)
    assert plan is not None
    world.snapshots.request(container)
    await world.snapshots._requested["ta-1"]
    assert (plan.state / RESTORED).exists() and (plan.snapshot.folder / FAILED).exists()
    assert world.surroundings.paused[-1] == "ta-1" and container.process.checkpoints == 0
    assert "the container keeps a connection open" in world.surroundings.notes[-1]


@pytest.mark.parametrize("kind", ["pipe", "symlink"])
async def test_a_container_cannot_misuse_its_mark(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe does not block the control plane, and a symlink leads it nowhere."""
    monkeypatch.setattr(snapshots, "CLOSING_PATIENCE", 0.05)
    world.surroundings.connected = True
    container: Any = Container(1)
    plan = await world.plan(container)
    assert plan is not None
    if kind == "pipe":
        os.mkfifo(plan.state / RESTORED)
    else:
        (plan.state / RESTORED).symlink_to(world.root / "elsewhere")
    world.snapshots.request(container)
    await world.snapshots._requested["ta-1"]
    assert not (world.root / "elsewhere").exists()
    assert "the container keeps a connection open" in world.surroundings.notes[-1]


async def test_nothing_stays(world: World) -> None:
    """At the end of the control plane, all snapshots are removed."""
    plan = await world.plan(Container(1))
    assert plan is not None
    world.snapshots.close()
    assert not plan.snapshot.folder.exists()
