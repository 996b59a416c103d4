"""Modal Volumes. (Being written: the signatures that the compute half needs.)"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from modal_proto import api_pb2

from modalflow.emulator.blobs import Blobs
from modalflow.emulator.environments import Environments
from modalflow.emulator.rpc import Service
from modalflow.emulator.store import StateDir


class Volumes(Service):
    """Answers the Volume RPCs."""

    def __init__(self, state: StateDir, blobs: Blobs, environments: Environments) -> None:
        self.open_files: Callable[[str], Collection[str]] | None = None

    async def attach(self, volume_id: str, container_id: str) -> Path:
        """Make the container's private writable view of the volume, seeded from the last commit."""
        raise NotImplementedError

    async def detach(self, volume_id: str, container_id: str) -> None:
        """Commit what is uncommitted and remove the view."""
        raise NotImplementedError

    def metadata(self, volume_id: str) -> api_pb2.VolumeMetadata:
        raise NotImplementedError
