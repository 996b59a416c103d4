"""Volumes among a process's mounts, and its open files.

Owns reading /proc. The consequences of an open file are decided in Volumes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.processes import mountinfo
from modalflow.emulator.processes.container_spec import VOLUMES
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.support.linux import family


class ProcMounts:
    """The volumes in containers, by container id."""

    def __init__(self, containers: Containers, fork_server: ForkServer) -> None:
        self._containers, self._fork_server = containers, fork_server

    async def overlays(self) -> str:
        """Return the attribute name space of overlay mounts; empty if containers cannot mount any."""
        return await self._fork_server.overlays()

    def mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        """Return a path for writing to a container's Volume from the control plane; None if it is not mounted."""
        container = self._containers.find(container_id)
        if container is None or container.process is None:
            return None
        return mounted_at(container.process.pid, volume_id)

    def open_files(self, container_id: str) -> set[str]:
        """Return the paths of the container's open files, those in Volumes as ``VOLUMES/<volume id>/<path>``."""
        return self._open_files(container_id, only_written=False)

    def written_files(self, container_id: str) -> set[str]:
        """Return the open files with write access."""
        return self._open_files(container_id, only_written=True)

    def _open_files(self, container_id: str, *, only_written: bool) -> set[str]:
        container = self._containers.find(container_id)
        if container is None or container.process is None:
            return set()
        points = volume_points(container.process.pid)
        found: set[str] = set()
        # Not the first process: it holds descriptors of its own for the mounts.
        for pid in family(container.process.pid)[1:]:
            folder = Path(f"/proc/{pid}")
            try:
                links = [*(folder / "fd").iterdir(), *(() if only_written else (folder / "cwd",))]
            except OSError:
                continue
            for link in links:
                try:
                    target = str(link.readlink())
                    place = in_volume(target, points)
                    if place is None and not container.is_plain:
                        continue
                    if container.is_in_gvisor and place is not None and place.rstrip("/") in points.values():
                        # gVisor holds the folder of each mount open.
                        continue
                    if only_written and not _is_writable(folder / "fdinfo" / link.name):
                        continue
                except OSError:
                    continue
                # A plain container's Volumes are symlinks to its views, known by their inodes.
                found.add(place or target)
        return found


def mounted_at(pid: int, volume_id: str) -> Path | None:
    """Return a path for writing to a Volume mounted in the container with this first process; None if there is none.

    It is a descriptor of the first process, found by the mount's own name. A path in the container could lead anywhere,
    because the container chooses its target.
    """
    try:
        named = {m.mount_id for m in mountinfo.mounts(pid) if (m.kind, m.source) == ("overlay", volume_id)}
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if _mount_of(Path(f"/proc/{pid}/fdinfo/{link.name}")) in named:
                return link
    except OSError:
        # It has ended.
        return None
    return None


def _mount_of(fdinfo: Path) -> str:
    try:
        lines = fdinfo.read_text().splitlines()
    except OSError:
        # Closed meanwhile.
        return ""
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


def volume_points(pid: int) -> dict[str, str]:
    """Return a container's mount points of Volumes: mount point → ``VOLUMES/<volume id>``, with the part if only one.

    A Volume mounted inside another one has a second mount there.
    """
    points: dict[str, str] = {}
    places: list[tuple[str, str, str]] = []
    try:
        mounts = mountinfo.mounts(pid)
    except OSError:
        return points
    for mounted in mounts:
        device, part, point = mounted.device, mounted.part, mounted.point
        if point.startswith(f"{VOLUMES}/") and "/" not in point[len(VOLUMES) + 1 :]:
            places.append((device, part.rstrip("/"), point))
            points[point] = point
            continue
        for of_device, whole, place in places:
            if device == of_device and f"{part.rstrip('/')}/".startswith(f"{whole}/"):
                points[point] = place + part.rstrip("/")[len(whole) :]
    return points


def in_volume(target: str, points: Mapping[str, str]) -> str | None:
    """Return the path within the Volume mounted nearest above a container's path; None if there is none."""
    # A path of another mount namespace may have a prefix.
    target = target[max(target.find(f"{VOLUMES}/"), 0) :]
    for point in sorted(points, key=len, reverse=True):
        if f"{target}/".startswith(f"{point}/"):
            return points[point] + (target[len(point) :] or "/")
    return None


def _is_writable(fdinfo: Path) -> bool:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return bool(int(line.split()[1], 8) & (os.O_WRONLY | os.O_RDWR))
    return False
