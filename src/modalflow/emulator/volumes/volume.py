"""One Modal Volume, and one container that has it: what is held in memory of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from modal_proto import api_pb2

from modalflow.emulator.rpc.wire import message
from modalflow.emulator.state.registry import Kept
from modalflow.emulator.volumes.tree import Tree
from modalflow.emulator.volumes.views.layers import VolumeLayers
from modalflow.emulator.volumes.views.view import View


@dataclass(kw_only=True)
class Volume(Kept):
    """One Modal Volume as it was last committed."""

    RECORDED: ClassVar[tuple[str, ...]] = (*Kept.RECORDED, "version")

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
    """A volume as one container has it."""

    view: View
    release: Callable[[], None]
    """To be called when the view is gone."""
    committer: asyncio.Task[None] | None = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the view is worked on."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """The container has finished an input since the last background commit."""
