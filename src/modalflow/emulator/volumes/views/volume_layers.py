"""The content of a Volume as immutable directories, for overlay mounts.

Owns the layers of one Volume. Each new layer holds the changes since the previous one. Layers of similar size are
merged in the background, and old ones are removed when no container uses them. A container's view is an overlay mount
over them. The cost of attaching a Volume therefore depends on recent changes, and not on the size of the Volume.

A file in a layer is a hard link to the stored content, with its mode and time in the Volume. Content is on disk once.
If two files with the same content differ in mode or time, each has a copy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalflow.emulator.state.trash import Trash
from modalflow.emulator.volumes.block_store import BlockStore
from modalflow.emulator.volumes.tree import Snapshot, Tree, parents
from modalflow.emulator.volumes.views.layer_files import StoppedError, create_layer, merge_layers

log = logging.getLogger(__name__)

#: The newest layer is merged with the next one until the next one is this many times as large. Each file is then linked
#: about as often as the logarithm of the number of files.
GROWTH = 2


@dataclass(eq=False)
class Layer:
    """A directory with the changes of some period; removed files are whiteouts of overlayfs."""

    folder: Path
    entries: int
    users: int = 0
    replaced: bool = False


@dataclass(frozen=True)
class Lower:
    """The layers below one view."""

    layers: tuple[Layer, ...]
    """The newest first; never empty."""
    files: Snapshot
    """The files shown by the layers."""
    step: Snapshot
    """The same files, to be changed by the view."""


class VolumeLayers:
    """The layers of one volume. Its methods are called on the event loop."""

    def __init__(
        self, root: Path, tree: Tree, blocks: BlockStore, trash: Trash, overlays: Callable[[], Awaitable[str]]
    ) -> None:
        """``overlays`` waits for the attribute name space of overlays; empty if there are none here."""
        self._root, self._tree, self._blocks, self._trash, self._overlays = root, tree, blocks, trash, overlays
        self._layers: list[Layer] = []
        """The newest first."""
        self._made = 0
        self._shown: Snapshot | None = None
        """The files shown by the layers; None if there are none."""
        self._building = asyncio.Lock()
        self._merging: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._ahead: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    @property
    def pending(self) -> int:
        """Return how many paths may have changed since the last layer."""
        return len(self._tree) if self._shown is None else len(self._shown.differences())

    async def lower(self) -> Lower:
        """Return the layers of the Volume's present content, to be passed to ``release``."""
        async with self._building:
            files, step = self._tree.snapshot(), self._tree.snapshot()
            try:
                await self._build()
            except BaseException:
                self._tree.release(files)
                self._tree.release(step)
                raise
            layers = tuple(self._layers) or (self._add(self._empty(), 0),)
            for layer in layers:
                layer.users += 1
        self._merge()
        return Lower(layers, files, step)

    def release(self, lower: Lower) -> None:
        """Release the layers of a view."""
        self._tree.release(lower.files)
        self._tree.release(lower.step)
        for layer in lower.layers:
            layer.users -= 1
        self._remove([layer for layer in lower.layers if layer.replaced and not layer.users])

    def build_later(self, seconds: float) -> None:
        """Make a layer of the changes, in the background, after so many seconds without another change."""
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(seconds, self._start_build)

    async def build_now(self) -> None:
        """Make a layer of the changes now."""
        self._start_build()
        if self._ahead is not None:
            await asyncio.shield(self._ahead)

    async def close(self) -> None:
        """Stop work in progress. The layers stay until ``discard``."""
        self._stop.set()
        if self._later is not None:
            self._later.cancel()
        tasks = [task for task in (self._ahead, self._merging) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def discard(self) -> None:
        """Remove the layers of a deleted Volume; those in use are removed when they are released."""
        await self.close()
        gone, self._layers = self._layers, []
        for layer in gone:
            layer.replaced = True
        self._remove([layer for layer in gone if not layer.users])

    def _start_build(self) -> None:
        self._later = None
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.get_running_loop().create_task(self._build_ahead())

    async def _build_ahead(self) -> None:
        if not await self._overlays():
            return
        try:
            async with self._building:
                await self._build()
        except (OSError, StoppedError) as error:
            # A container with this Volume causes another attempt, and gets the error.
            if not self._stop.is_set():
                log.warning("the layers of a volume could not be prepared ahead of their use: %s", error)
            return
        self._merge()

    async def _build(self) -> None:
        """Make a layer of the changes. The caller holds the lock."""
        shown = self._shown
        changed = list(self._tree.nodes()) if shown is None else shown.differences()
        if not changed:
            return
        nodes = {path: self._tree.get(path) for path in changed}
        for path in changed:
            for above in parents(path):
                if above in nodes:
                    break
                nodes[above] = self._tree.get(above)
        gone = {
            path for path, node in nodes.items() if node is None and shown is not None and shown.get(path) is not None
        }
        self._shown, folder = self._tree.snapshot(), self._next()
        try:
            await asyncio.to_thread(create_layer, folder, nodes, gone, self._blocks, self._stop)
        except BaseException:
            self._tree.release(self._shown)
            self._shown = shown
            self._trash.put(folder)
            raise
        if shown is not None:
            self._tree.release(shown)
        self._add(folder, len(nodes))

    def _add(self, folder: Path, entries: int) -> Layer:
        layer = Layer(folder, entries)
        self._layers.insert(0, layer)
        return layer

    def _next(self) -> Path:
        self._made += 1
        return self._root / str(self._made)

    def _empty(self) -> Path:
        folder = self._next()
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        return folder

    def _merge(self) -> None:
        """Merge the newest two layers if they are of similar size, and so on, in the background."""
        if self._merging is None or self._merging.done():
            self._merging = asyncio.get_running_loop().create_task(self._merge_all())

    async def _merge_all(self) -> None:
        while len(self._layers) > 1 and not self._stop.is_set():
            sizes = [layer.entries for layer in self._layers]
            # The deepest layer of at most ``GROWTH`` times the size of all above it: the layers down to it become one.
            depth = max((n for n in range(1, len(sizes)) if sizes[n] <= GROWTH * sum(sizes[:n])), default=0)
            if not depth:
                return
            merged, below = self._layers[: depth + 1], self._layers[depth + 1 :]
            folder = self._next()
            try:
                entries = await asyncio.to_thread(merge_layers, folder, folders(merged), folders(below), self._stop)
            except (OSError, StoppedError) as error:
                if not self._stop.is_set():
                    log.warning("the layers of a volume could not be merged: %s", error)
                self._trash.put(folder)
                return
            # Newer layers may exist by now, on top.
            first = self._layers.index(merged[0])
            self._layers[first : first + len(merged)] = [Layer(folder, entries)]
            for layer in merged:
                layer.replaced = True
            self._remove([layer for layer in merged if not layer.users])

    def _remove(self, layers: list[Layer]) -> None:
        for layer in layers:
            self._trash.put(layer.folder)


def folders(layers: Sequence[Layer]) -> list[Path]:
    return [layer.folder for layer in layers]
