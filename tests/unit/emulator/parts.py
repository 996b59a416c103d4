"""Parts of a control plane for tests of one of them, with containers that are no processes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.function_call import FunctionCall
from modalflow.emulator.containers.container import Container
from modalflow.emulator.faults.late_commits import LateCommits
from modalflow.emulator.faults.rules import Rules
from modalflow.emulator.functions.function import Function
from modalflow.emulator.rpc.handlers import Handlers
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes.container_mounts import ContainerMounts
from modalflow.emulator.volumes.volumes import Volumes


class NoMounts:
    """Containers without mounts: they get copies of volumes. ``open`` are the files that all of them have open."""

    def __init__(self) -> None:
        self.open: Collection[str] = ()

    async def overlays(self) -> str:
        return ""

    def mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        return None

    def open_files(self, container_id: str) -> Collection[str]:
        return self.open

    def written_files(self, container_id: str) -> Collection[str]:
        return ()


def make_volumes(
    state: StateDir, mounts: ContainerMounts | None = None, environments: Environments | None = None
) -> Volumes:
    """Volumes in a state folder, without faults."""
    environments = environments or Environments(state.journal)
    return Volumes(state, Addresses(state), environments, mounts or NoMounts(), LateCommits(Rules(0)))


def make_call(function: Function) -> FunctionCall:
    """A call without inputs, of which nothing is on disk."""
    return FunctionCall(function=function, kind=0, invocation=0, observer=CallRecords(Journal()))


def replace_handler(handlers: Handlers, name: str, method: Callable[..., Any]) -> None:
    """Answer an RPC in another way from now on."""
    handlers._by_name[name] = dataclasses.replace(handlers._by_name[name], method=method)


class Notes:
    """A log of functions that keeps the texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, function: Function, text: str) -> None:
        self.texts.append(text)


class Runner:
    """Runs containers that do nothing until they are cancelled."""

    async def run(self, container: Container) -> int:
        await asyncio.get_running_loop().create_future()
        return 0

    def on_ready(self, container: Container) -> None: ...

    def on_input(self, container: Container) -> None: ...
