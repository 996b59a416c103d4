"""The interface through which Volumes inspect the containers that mount them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol


class ContainerMounts(Protocol):
    """The mounts and open files of containers."""

    async def overlays(self) -> str:
        """Return the namespace of the attributes of overlay mounts over the state folder, once it is known.

        Empty if containers cannot have such mounts.
        """
        ...

    def mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        """Return the path at which the control plane can write to a running container's Volume; None if it cannot."""
        ...

    def open_files(self, container_id: str) -> Collection[str]:
        """Return the open files of a container: ``VOLUMES/<volume id>/<path>``, or ``/proc/<pid>/fd/<n>`` links."""
        ...

    def written_files(self, container_id: str) -> Collection[str]:
        """Return the open files that the container can write to."""
        ...
