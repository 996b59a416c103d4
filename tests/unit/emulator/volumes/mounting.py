"""Volumes in rooms like a container's, with a process that only waits: views are mounted, and no runtime is needed."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from modalflow.emulator.processes.container_spec import VOLUMES, ContainerSpec, Isolation, Rootfs, VolumeView
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.emulator.processes.process import Process
from modalflow.emulator.volumes.proc_mounts import mounted_at

_WAIT = ("/bin/sh", "-c", "echo ready; exec sleep 1000")


class Rooms:
    """Starts rooms, and shows what is mounted in them. ``start`` before any use, ``close`` at the end."""

    def __init__(self, isolation: Isolation = Isolation.ROOT) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rooms-"))
        self._server = ForkServer({"PATH": os.defpath}, isolation=isolation, preload=False, folder=self._folder)
        self._rooms: dict[str, Process] = {}

    async def start(self) -> None:
        self._server.start()
        await self._server.isolation()

    async def overlays(self) -> str:
        return await self._server.overlays()

    def open_files(self, container_id: str) -> Collection[str]:
        return ()

    def written_files(self, container_id: str) -> Collection[str]:
        return ()

    async def enter(self, container_id: str, *volumes: VolumeView) -> Path:
        """Start a room with Volumes; return its root."""
        folder = self._folder / container_id
        (folder / "layer").mkdir(parents=True)
        rootfs = Rootfs(folder, folder / "layer", hidden=self._folder, volumes=volumes, cwd="/")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        said: list[str] = []

        def heard(line: str) -> None:
            said.append(line)
            if not ready.done():
                ready.set_result(None)

        process = await self._server.launch(ContainerSpec(rootfs, {}, program=_WAIT), heard, heard)
        await asyncio.wait_for(ready, 30)
        assert said == ["ready\n"], said
        self._rooms[container_id] = process
        return Path(f"/proc/{process.pid}/root")

    def mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        process = self._rooms.get(container_id)
        return None if process is None else mounted_at(process.pid, volume_id)

    async def leave(self, container_id: str) -> None:
        process = self._rooms.pop(container_id, None)
        if process is not None:
            process.kill()
            await process.wait()
            shutil.rmtree(self._folder / container_id)

    async def close(self) -> None:
        for container_id in list(self._rooms):
            await self.leave(container_id)
        self._server.close()
        shutil.rmtree(self._folder)


def mounted(root: Path, volume_id: str) -> Path:
    """Where a room has a Volume."""
    return root / VOLUMES.strip("/") / volume_id
