"""The content of a Volume as immutable directories, for overlay mounts.

Owns the layers of one volume: a new one for what changed since the last, two of similar size merged into one beside
all other work, old ones removed when no container has them. A container's view is an overlay mount over them, so what
attaching a volume costs depends on what changed since the last time and not on what the volume holds.

A file in a layer is a hard link to the file that keeps its content, with the mode and the time that it has in the
volume: content is on disk once. Where two files with the same content differ in these, each has a copy.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalflow.emulator.state.trash import Trash
from modalflow.emulator.volumes.blocks import BlockStore
from modalflow.emulator.volumes.tree import Past, Tree, parents
from modalflow.emulator.volumes.views.laying import StoppedError, lay_out, lay_together

log = logging.getLogger(__name__)

#: The newest layer is merged with the one below it until that is this many times as large. So each file is linked about
#: as often as the logarithm of the number of files.
GROWTH = 2


@dataclass(eq=False)
class Layer:
    """A directory with what changed at some time; what was removed is a whiteout of overlayfs."""

    folder: Path
    entries: int
    users: int = 0
    replaced: bool = False


@dataclass(frozen=True)
class Lower:
    """What one view lies over."""

    layers: tuple[Layer, ...]
    """The newest first; never empty."""
    files: Past
    """What they show."""
    step: Past
    """The same, to be changed by the view."""


class VolumeLayers:
    """The layers of one volume. Its methods are called on the event loop."""

    def __init__(
        self, root: Path, tree: Tree, blocks: BlockStore, trash: Trash, wanted: Callable[[], Awaitable[str]]
    ) -> None:
        """``wanted`` returns, once it is known, a text that is not empty if containers have overlay mounts here."""
        self._root, self._tree, self._blocks, self._trash, self._wanted = root, tree, blocks, trash, wanted
        self._layers: list[Layer] = []
        """The newest first."""
        self._made = 0
        self._laid: Past | None = None
        """What the layers show; None if there are none."""
        self._building = asyncio.Lock()
        self._merging: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._stop = threading.Event()

    @property
    def unsettled(self) -> int:
        """How many paths may have changed since the last layer."""
        return len(self._tree) if self._laid is None else len(self._laid.differing())

    async def lower(self) -> Lower:
        """Return what shows the volume as it is now, to be given to ``release``."""
        async with self._building:
            files, step = self._tree.remember(), self._tree.remember()
            try:
                await self._build()
            except BaseException:
                self._tree.forget(files)
                self._tree.forget(step)
                raise
            layers = tuple(self._layers) or (self._add(self._empty(), 0),)
            for layer in layers:
                layer.users += 1
        self._merge()
        return Lower(layers, files, step)

    def release(self, lower: Lower) -> None:
        """Nothing lies over these any more."""
        self._tree.forget(lower.files)
        self._tree.forget(lower.step)
        for layer in lower.layers:
            layer.users -= 1
        self._remove([layer for layer in lower.layers if layer.replaced and not layer.users])

    def settle(self, seconds: float) -> None:
        """Make a layer of what changed, beside all other work, when nothing more has changed for that long."""
        if self._later is not None:
            self._later.cancel()
        self._later = asyncio.get_running_loop().call_later(seconds, self._settle_now)

    async def settled(self) -> None:
        """Make a layer of what changed, now."""
        self._settle_now()
        if self._settling is not None:
            await asyncio.shield(self._settling)

    async def close(self) -> None:
        """Stop what is under way. The layers stay until ``discard``."""
        self._stop.set()
        if self._later is not None:
            self._later.cancel()
        tasks = [task for task in (self._settling, self._merging) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def discard(self) -> None:
        """Delete the volume's layers; those in use go when they are free."""
        await self.close()
        gone, self._layers = self._layers, []
        for layer in gone:
            layer.replaced = True
        self._remove([layer for layer in gone if not layer.users])

    def _settle_now(self) -> None:
        self._later = None
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        if not await self._wanted():
            return
        try:
            async with self._building:
                await self._build()
        except (OSError, StoppedError) as error:
            # A container that needs the layer tries again, and gets the error.
            if not self._stop.is_set():
                log.warning("the files of a volume could not be laid out ahead of their use: %s", error)
            return
        self._merge()

    async def _build(self) -> None:
        """Make a layer of what changed. The caller holds the lock."""
        laid = self._laid
        changed = list(self._tree.nodes()) if laid is None else laid.differing()
        if not changed:
            return
        nodes = {path: self._tree.get(path) for path in changed}
        for path in changed:
            for above in parents(path):
                if above in nodes:
                    break
                nodes[above] = self._tree.get(above)
        gone = {
            path for path, node in nodes.items() if node is None and laid is not None and laid.get(path) is not None
        }
        self._laid, folder = self._tree.remember(), self._next()
        try:
            await asyncio.to_thread(lay_out, folder, nodes, gone, self._blocks, self._stop)
        except BaseException:
            self._tree.forget(self._laid)
            self._laid = laid
            self._trash.put(folder)
            raise
        if laid is not None:
            self._tree.forget(laid)
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
        """Merge the newest two layers if they are of similar size, and so on, beside all other work."""
        if self._merging is None or self._merging.done():
            self._merging = asyncio.get_running_loop().create_task(self._merge_all())

    async def _merge_all(self) -> None:
        while len(self._layers) > 1 and not self._stop.is_set():
            sizes = [layer.entries for layer in self._layers]
            # The deepest place at which a layer is not much larger than all above it: that many become one.
            depth = max((n for n in range(1, len(sizes)) if sizes[n] <= GROWTH * sum(sizes[:n])), default=0)
            if not depth:
                return
            merged, below = self._layers[: depth + 1], self._layers[depth + 1 :]
            folder = self._next()
            try:
                entries = await asyncio.to_thread(lay_together, folder, folders(merged), folders(below), self._stop)
            except (OSError, StoppedError) as error:
                if not self._stop.is_set():
                    log.warning("the layers of a volume could not be merged: %s", error)
                self._trash.put(folder)
                return
            # Newer ones may have come meanwhile, on top.
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
