"""What a volume holds as directories on disk: layers that lie over each other, none of which ever changes.

Owns the layers of one volume: a new one for what changed since the last, two of similar size merged into one beside
all other work, old ones removed when no container has them. A container's view is an overlay mount over them, so what
attaching a volume costs depends on what changed since the last time and not on what the volume holds.

A file in a layer is a hard link to the file that keeps its content, with the mode and the time that it has in the
volume: content is on disk once. Where two files with the same content differ in these, each has a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import stat
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modalflow.emulator.volumes.blocks import BlockStore
from modalflow.emulator.volumes.tree import Kind, Node, Past, Tree, join, parent, parents

log = logging.getLogger(__name__)

#: The newest layer is merged with the one below it until that is this many times as large: each file is then linked
#: about as often as the logarithm of the number of files.
GROWTH = 2

#: Where overlayfs keeps its extended attributes: root's overlays in the first, those of user namespaces in the second.
NAMESPACES = ("trusted", "user")

_linking = threading.Lock()
"""Held while a file's mode and time are settled: two volumes may hold the same content."""


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


class Layers:
    """The layers of one volume. Its methods are called on the event loop."""

    def __init__(self, root: Path, tree: Tree, blocks: BlockStore, wanted: Callable[[], Awaitable[bool]]) -> None:
        """``wanted`` returns, once that is known, whether containers have overlay mounts here."""
        self._root, self._tree, self._blocks, self._wanted = root, tree, blocks, wanted
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

    async def close(self) -> None:
        """Stop what is under way. The layers stay until ``discard``."""
        self._stop.set()
        if self._later is not None:
            self._later.cancel()
        tasks = [task for task in (self._settling, self._merging) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def discard(self) -> None:
        """The volume is deleted: its layers go, those in use when they no longer are."""
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
        except (OSError, _StoppedError) as error:
            # Whoever needs the layer tries again, and hears of it.
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
            await asyncio.to_thread(self._lay_out, folder, nodes, gone)
        except BaseException:
            self._tree.forget(self._laid)
            self._laid = laid
            shutil.rmtree(folder, ignore_errors=True)
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
                entries = await asyncio.to_thread(self._lay_together, folder, merged, below)
            except (OSError, _StoppedError) as error:
                if not self._stop.is_set():
                    log.warning("the layers of a volume could not be merged: %s", error)
                shutil.rmtree(folder, ignore_errors=True)
                return
            # Newer ones may have come meanwhile, on top.
            first = self._layers.index(merged[0])
            self._layers[first : first + len(merged)] = [Layer(folder, entries)]
            for layer in merged:
                layer.replaced = True
            self._remove([layer for layer in merged if not layer.users])

    def _remove(self, layers: list[Layer]) -> None:
        if layers:
            folders = [layer.folder for layer in layers]
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().run_in_executor(None, _remove_all, folders)

    # In another thread

    def _lay_out(self, folder: Path, nodes: Mapping[str, Node | None], gone: Collection[str]) -> None:
        """Make the layer. Those ``gone`` are what the layers below it show and the volume no longer has."""
        used = [block for node in nodes.values() if node is not None for block in node.blocks]
        self._blocks.use(used)
        try:
            folder.mkdir(parents=True)
            folder.chmod(0o755)
            directories: list[tuple[str, Node]] = []
            for path in sorted(nodes):
                if self._stop.is_set():
                    raise _StoppedError
                node, target = nodes[path], folder / path
                if node is None:
                    above = parent(path)
                    # In a directory that lies over no other, a container would see the whiteout itself.
                    if path in gone and (
                        not above or ((holder := nodes.get(above)) is not None and holder.kind is Kind.DIRECTORY)
                    ):
                        os.mknod(target, stat.S_IFCHR, 0)
                elif node.kind is Kind.DIRECTORY:
                    target.mkdir(mode=0o700)
                    directories.append((path, node))
                elif node.kind is Kind.LINK:
                    target.symlink_to(node.target)
                    os.utime(target, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
                else:
                    place(self._blocks, node, target)
            # Last, and from the bottom: what is put into a directory changes its time, and needs its mode.
            for path, node in reversed(directories):
                _dress(folder / path, node)
        finally:
            self._blocks.release(used)

    def _lay_together(self, folder: Path, layers: list[Layer], below: list[Layer]) -> int:
        """Make one layer of several, for above those ``below``."""
        folder.mkdir()
        entries = 0
        pending = [_Merging("", [layer.folder for layer in layers], [layer.folder for layer in below])]
        made: list[tuple[Path, os.stat_result]] = []
        while pending:
            if self._stop.is_set():
                raise _StoppedError
            here = pending.pop()
            target = folder / here.path
            if here.path:
                target.mkdir(mode=0o700, exist_ok=True)
            made.append((target, here.sources[0].stat()))
            for name, shown in _shown(here.sources).items():
                entries += 1
                if stat.S_ISDIR(shown.mode):
                    lower = _continued(here.below, name)
                    if shown.covers and lower:
                        (target / name).mkdir(mode=0o700)
                        _make_opaque(target / name)
                        lower = []
                    sources = [source / name for source in shown.sources]
                    pending.append(_Merging(join(here.path, name), sources, lower))
                elif here.below or not stat.S_ISCHR(shown.mode):
                    # In a directory that lies over no other, a container would see the whiteout itself.
                    _link(shown.sources[0] / name, target / name)
        for target, status in reversed(made):
            target.chmod(stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
        return entries


@dataclass(frozen=True)
class _Merging:
    """A directory of several layers that becomes one."""

    path: str
    sources: list[Path]
    below: list[Path]
    """The same directory of the layers that stay below; none if it lies over nothing there."""


class _StoppedError(Exception):
    """The control plane ends: whatever is not finished is not needed."""


def place(blocks: BlockStore, node: Node, target: Path) -> None:
    """Put a file of a volume at a path, as a link to its content if that can be. It is not to be written to."""
    if node.blocks and (content := blocks.content(node.blocks, node.size)) is not None and _can_keep(node.mode):
        with _linking, contextlib.suppress(OSError):
            # OSError: the file system allows no more links to it. Then it is a copy.
            status = content.stat()
            alike = (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (node.mode, node.mtime_ns)
            if not alike and status.st_nlink == 1:
                _dress(content, node)
                alike = True
            if alike:
                os.link(content, target)
                return
    blocks.write_file(node.blocks, node.size, target)
    _dress(target, node)


def _can_keep(mode: int) -> bool:
    """Whether the control plane can still read what has this mode."""
    return bool(mode & stat.S_IRUSR) or os.geteuid() == 0


def is_opaque(directory: Path) -> bool:
    """Whether a directory of an overlay's layer hides what the layers below have there."""
    return any(_attribute(directory, f"{space}.overlay.opaque") == b"y" for space in NAMESPACES)


def _make_opaque(directory: Path) -> None:
    for space in NAMESPACES:
        # Only root may set the first kind, and only root's overlays read it.
        with contextlib.suppress(PermissionError):
            os.setxattr(directory, f"{space}.overlay.opaque", b"y")


def _attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        shutil.copy2(source, target)


def _dress(path: Path, node: Node) -> None:
    path.chmod(node.mode)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns))


@dataclass
class _Shown:
    """What stands at a name in directories that lie over each other."""

    mode: int
    sources: list[Path]
    """The directories that show it; more than one only if it is a directory in all of them."""
    covers: bool = False
    """A directory that hides all that further layers have there."""


def _shown(sources: list[Path]) -> dict[str, _Shown]:
    found: dict[str, _Shown] = {}
    ended: set[str] = set()
    for source in sources:
        for name, mode in _entries(source):
            is_directory = stat.S_ISDIR(mode)
            shown = found.get(name)
            if shown is None:
                shown = found[name] = _Shown(mode, [source])
            elif name in ended:
                continue
            elif is_directory:
                shown.sources.append(source)
            else:
                shown.covers = True
            if not is_directory:
                ended.add(name)
            elif is_opaque(source / name):
                shown.covers = True
                ended.add(name)
    return found


def _continued(sources: list[Path], name: str) -> list[Path]:
    """Return the directories of that name in directories that lie over each other, as far as they show through."""
    found: list[Path] = []
    for source in sources:
        there = source / name
        try:
            mode = there.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            break
        found.append(there)
        if is_opaque(there):
            break
    return found


def _entries(folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, entry.stat(follow_symlinks=False).st_mode


def _remove_all(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
