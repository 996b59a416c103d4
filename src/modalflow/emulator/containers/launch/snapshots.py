"""Memory snapshots: the containers they are taken of, and those restored from them.

Owns the decision and the files. gVisor takes a snapshot and restores it (``processes/sandboxes``), so containers with
another isolation have none. The first container of a function's definition stops at the place of the snapshot, as
Modal's runtime does it. All containers that start later with the same content are restored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modal_proto import api_pb2

from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.placement import FunctionLog
from modalflow.emulator.ids import new_id
from modalflow.emulator.network.networks import Networks
from modalflow.emulator.processes.container_spec import (
    RESTORE_FOLDER,
    RESTORE_MOUNT,
    SNAPSHOT_VARIABLE,
    Snapshot,
    VolumeView,
)
from modalflow.emulator.processes.sandboxes import inside
from modalflow.emulator.processes.sandboxes.inside import PENDING_STATE, STATE
from modalflow.emulator.processes.sandboxes.supervision import FAILED, FINISHED, mark_restored
from modalflow.emulator.rpc.container_sockets import ContainerSockets
from modalflow.emulator.state.state_dir import StateDir

#: The variables of a container's identity. All others belong to the content of a snapshot.
_IDENTITY = ("MODAL_TASK_ID", "MODAL_SERVER_URL", "MODAL_CONTAINER_ARGUMENTS_PATH")

#: Where Modal's runtime waits for the identity of a restored container, by the variable that names the file.
_STATE_VARIABLE = "MODAL_RESTORE_STATE_PATH"

#: The folder with the programs that run inside.
PROGRAMS = Path(inside.__file__).parent

#: Seconds for a container to close its connections before the snapshot.
CLOSING_PATIENCE = 5.0

#: Seconds between two checks of its connections.
_STEP = 0.01


@dataclass(frozen=True)
class Plan:
    """The part of a snapshot in the start of one container."""

    snapshot: Snapshot
    state: Path
    """The host folder with the identity of the container for Modal's runtime."""

    @property
    def view(self) -> VolumeView:
        """The mount of the folder with the identity."""
        return VolumeView(RESTORE_MOUNT, self.state, f"/__modal/{RESTORE_MOUNT}")

    @property
    def variables(self) -> dict[str, str]:
        return {SNAPSHOT_VARIABLE: "1", _STATE_VARIABLE: f"{RESTORE_FOLDER}/{STATE}"}


class Snapshots:
    """The snapshots of all functions."""

    def __init__(self, state: StateDir, sockets: ContainerSockets, networks: Networks, log: FunctionLog) -> None:
        self._folder = state.folder("snapshots")
        self._sockets, self._networks, self._function_log = sockets, networks, log
        self._taken_of: dict[str, str] = {}
        """Content of a snapshot → its container."""
        self._plans: dict[str, Plan] = {}
        self._requested: dict[str, asyncio.Task[None]] = {}

    async def plan(
        self, container: Container, arguments: api_pb2.ContainerArguments, variables: Mapping[str, str], folder: Path
    ) -> Plan | None:
        """Return the plan for a container in gVisor with these arguments and variables; None if it has no snapshot.

        ``folder`` is the container's own. In a container of which the snapshot is taken, the arguments get its id.
        """
        if not _asks(container):
            return None
        # The client asks for it in another field than the runtime reads.
        arguments.function_def.is_checkpointing_function = True
        key = _key(arguments, variables)
        place = self._folder / f"{container.function.object_id}-{key}"
        exists = (place / FINISHED).exists()
        if (place / FAILED).exists() or (self._taken_of.get(key) is not None and not exists):
            return None
        if not exists:
            self._remove_others(container.function.object_id)
            place.mkdir(mode=0o700)
            self._taken_of[key] = container.container_id
            arguments.checkpoint_id = new_id("ch")
        state = folder / RESTORE_MOUNT
        shutil.copytree(PROGRAMS, state / "inside")
        identity = {name.removeprefix("MODAL_").lower(): variables[name] for name in _IDENTITY}
        (state / PENDING_STATE).write_text(json.dumps(identity))
        reach = await self._networks.gateway(container.container_id, state)
        plan = self._plans[container.container_id] = Plan(Snapshot(place, reach, exists), state)
        return plan

    def request(self, container: Container) -> None:
        """Take the snapshot of a container at its place, once its connections are closed."""
        plan = self._plans.get(container.container_id)
        if plan is None or plan.snapshot.exists or container.container_id in self._requested:
            return
        self._requested[container.container_id] = asyncio.create_task(self._take(container, plan))

    async def _take(self, container: Container, plan: Plan) -> None:
        try:
            async with asyncio.timeout(CLOSING_PATIENCE):
                await self._networks.pause(container.container_id)
                while self._sockets.is_connected(container.container_id):
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            # gVisor would end the container instead.
            (plan.snapshot.folder / FAILED).touch()
            with contextlib.suppress(OSError):
                mark_restored(plan.state)
            self._note(container, "a memory snapshot cannot be taken: the container keeps a connection open")
            return
        if container.process is None:
            return
        began = time.monotonic()
        container.process.checkpoint()
        finished = plan.snapshot.folder / FINISHED
        while not (finished.exists() or (plan.snapshot.folder / FAILED).exists()):
            await asyncio.sleep(_STEP)
        if finished.exists():
            size = sum(path.stat().st_size for path in finished.iterdir()) >> 20
            self._note(container, f"a memory snapshot of {size} MiB was taken in {time.monotonic() - began:.1f} s")

    def _note(self, container: Container, text: str) -> None:
        self._function_log.note(container.function, f"{container.function.tag}: {text}")

    def ended(self, container_id: str) -> None:
        """Forget an ended container. Harmless for one without a snapshot."""
        plan, request = self._plans.pop(container_id, None), self._requested.pop(container_id, None)
        if request is not None:
            request.cancel()
        for key in [key for key, taken_of in self._taken_of.items() if taken_of == container_id]:
            del self._taken_of[key]
        if plan is not None and not any((plan.snapshot.folder / name).exists() for name in (FINISHED, FAILED)):
            # The container has ended early, for a reason of its own.
            shutil.rmtree(plan.snapshot.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove all snapshots."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _remove_others(self, function_id: str) -> None:
        """Remove the snapshots of earlier definitions of a function, except one being taken."""
        in_use = {plan.snapshot.folder for plan in self._plans.values() if not plan.snapshot.exists}
        for place in self._folder.glob(f"{function_id}-*"):
            if place not in in_use:
                shutil.rmtree(place, ignore_errors=True)


def _asks(container: Container) -> bool:
    spec = container.spec
    return spec.checkpointing_enabled and container.is_in_gvisor and container.function.building is None


def _key(arguments: api_pb2.ContainerArguments, variables: Mapping[str, str]) -> str:
    content = api_pb2.ContainerArguments()
    content.CopyFrom(arguments)
    content.ClearField("task_id")
    others = sorted((name, value) for name, value in variables.items() if name not in _IDENTITY)
    found = hashlib.sha256(content.SerializeToString(deterministic=True))
    found.update(json.dumps(others).encode())
    return found.hexdigest()[:32]
