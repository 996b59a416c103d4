"""Volumes among a process's mounts, and its open files.

Owns the reading of /proc. What follows from an open file is Volumes' matter.
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
        """Return where overlays keep their extended attributes; empty if containers cannot mount any."""
        return await self._fork_server.overlays()

    def mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        """Return where the control plane can write to a container's volume, None if it is not mounted."""
        container = self._containers.find(container_id)
        if container is None or container.process is None:
            return None
        return mounted_at(container.process.pid, volume_id)

    def open_files(self, container_id: str) -> set[str]:
        """Return the paths of files that the container has open, those in volumes as ``VOLUMES/<volume id>/<path>``."""
        return self._open_files(container_id, only_written=False)

    def written_files(self, container_id: str) -> set[str]:
        """Return those of the open files that the container can write to."""
        return self._open_files(container_id, only_written=True)

    def _open_files(self, container_id: str, *, only_written: bool) -> set[str]:
        container = self._containers.find(container_id)
        if container is None or container.process is None:
            return set()
        points = volume_points(container.process.pid)
        found: set[str] = set()
        # Not the first process: it holds descriptors of its own on the mounts.
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
                    if only_written and not _is_writable(folder / "fdinfo" / link.name):
                        continue
                except OSError:
                    continue
                # The volumes of a plain container are symlinks to their views, which are known by their inodes.
                found.add(place or target)
        return found


def mounted_at(pid: int, volume_id: str) -> Path | None:
    """Return where the control plane can write to a volume that a container, whose first process this is, has.

    It is what the first process holds, found by the mount's own name: what a path of the container leads to is the
    container's choice. None if there is no such mount.
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
    """Return where a container has volumes mounted: mount point → ``VOLUMES/<volume id>``, with the part if only one.

    One that is mounted inside another volume has a second mount there.
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
    """Return what a path in a container is in the volume that is mounted nearest above it, None if there is none."""
    # A path of another mount namespace may have something before it.
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
