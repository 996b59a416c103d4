"""One Volume, and one container attached to it, in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import ClassVar

from modal_proto import api_pb2

from modalflow.emulator.rpc.wire import message
from modalflow.emulator.state.registry import StoredObject
from modalflow.emulator.volumes.tree import Tree
from modalflow.emulator.volumes.views.view import View
from modalflow.emulator.volumes.views.volume_layers import Lower, VolumeLayers


@dataclass(kw_only=True)
class Volume(StoredObject):
    """One Modal Volume as it was last committed."""

    RECORDED: ClassVar[tuple[str, ...]] = (*StoredObject.RECORDED, "version")

    version: int = api_pb2.VOLUME_FS_VERSION_V1
    tree: Tree = field(default_factory=Tree)
    layers: VolumeLayers | None = None
    """The tree as directories, for overlay mounts."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the tree changes, and never while files are read or written."""

    @property
    def metadata(self) -> api_pb2.VolumeMetadata:
        return message(api_pb2.VolumeMetadata, version=self.version, name=self.name, creation_info=self.creation_info)


@dataclass
class Attached:
    """One Volume attached to one container."""

    view: View
    layers: VolumeLayers | None = None
    lower: Lower | None = None
    """The layers below an overlay view, in use until ``release``."""
    committer: asyncio.Task[None] | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the view is read or changed."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the container has finished an input since the last background commit."""

    def release(self) -> None:
        """Release the layers below the view, after the view is gone."""
        if self.layers is not None and self.lower is not None:
            self.layers.release(self.lower)
            self.lower = None
