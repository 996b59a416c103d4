"""Create the directory of a layer, and merge several into one.

Owns the content of a layer: hard links to stored content, folders, symlinks, and whiteouts for removed files. A layer
never changes after its creation. These functions run in the caller's thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modalflow.emulator.volumes.block_store import BlockStore
from modalflow.emulator.volumes.tree import Node, NodeKind, join, parent

#: The name spaces of overlayfs's extended attributes: the first for root's overlays, the second for user namespaces.
NAMESPACES = ("trusted", "user")

_linking = threading.Lock()
"""Held while a file's mode and time are set: two Volumes may have the same content."""


class StoppedError(Exception):
    """The error for work interrupted by the end of the control plane."""


def create_layer(
    folder: Path,
    nodes: Mapping[str, Node | None],
    gone: Collection[str],
    blocks: BlockStore,
    stop: threading.Event,
) -> None:
    """Make the layer.

    ``gone`` are the paths shown by the layers below but removed from the Volume.
    """
    used = [block for node in nodes.values() if node is not None for block in node.blocks]
    if blocks.use(used):
        # Damaged: the blocks are not used, so they must not be released either.
        used = []
    try:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        directories: list[tuple[str, Node]] = []
        for path in sorted(nodes):
            if stop.is_set():
                raise StoppedError
            node, target = nodes[path], folder / path
            if node is None:
                above = parent(path)
                # In a directory without a lower one, a container would see the whiteout itself.
                if path in gone and (
                    not above or ((holder := nodes.get(above)) is not None and holder.kind is NodeKind.DIRECTORY)
                ):
                    os.mknod(target, stat.S_IFCHR, 0)
            elif node.kind is NodeKind.DIRECTORY:
                target.mkdir(mode=0o700)
                directories.append((path, node))
            elif node.kind is NodeKind.LINK:
                target.symlink_to(node.target)
                os.utime(target, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
            else:
                place(blocks, node, target)
        # Last, and from the bottom: an entry put into a directory changes its time, and needs its write permission.
        for path, node in reversed(directories):
            _set_mode_and_time(folder / path, node)
    finally:
        blocks.release(used)


def merge_layers(folder: Path, layers: Collection[Path], below: Collection[Path], stop: threading.Event) -> int:
    """Merge several layers into one, to be placed above those ``below``."""
    folder.mkdir()
    entries = 0
    pending = [_Merging("", list(layers), list(below))]
    made: list[tuple[Path, os.stat_result]] = []
    while pending:
        if stop.is_set():
            raise StoppedError
        here = pending.pop()
        target = folder / here.path
        if here.path:
            target.mkdir(mode=0o700, exist_ok=True)
        made.append((target, here.sources[0].stat()))
        for name, shown in _shown(here.sources).items():
            entries += 1
            if stat.S_ISDIR(shown.mode):
                lower = _lower_directories(here.below, name)
                if shown.covers and lower:
                    (target / name).mkdir(mode=0o700)
                    _make_opaque(target / name)
                    lower = []
                sources = [source / name for source in shown.sources]
                pending.append(_Merging(join(here.path, name), sources, lower))
            elif here.below or not stat.S_ISCHR(shown.mode):
                # In a directory without a lower one, a container would see the whiteout itself.
                _link(shown.sources[0] / name, target / name)
    for target, status in reversed(made):
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
    return entries


@dataclass(frozen=True)
class _Merging:
    """A directory of several layers, to be merged into one."""

    path: str
    sources: list[Path]
    below: list[Path]
    """The same directory in the layers below; none if nothing there is shown through."""


def place(blocks: BlockStore, node: Node, target: Path) -> None:
    """Put a file of a Volume at a path, as a link to its content if possible. It must not be written to."""
    content = blocks.content(node.blocks, node.size) if node.blocks and _can_keep(node.mode) else None
    if content is not None:
        with _linking, contextlib.suppress(OSError):
            # OSError: the file system allows no more links to it. Then the file is copied.
            status = os.stat(content)  # noqa: PTH116 (for each of very many files)
            alike = (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (node.mode, node.mtime_ns)
            if not alike and status.st_nlink == 1:
                _set_mode_and_time(content, node)
                alike = True
            if alike:
                os.link(content, target)
                return
    blocks.write_file(node.blocks, node.size, target)
    _set_mode_and_time(target, node)


def set_mode_and_time(descriptor: int, *, mode: int, mtime_ns: int) -> None:
    """Set the mode and time of a new content file, so that its first file can be linked without a copy."""
    if _can_keep(mode):
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def _can_keep(mode: int) -> bool:
    """Return whether the control plane can still read a file with this mode."""
    return bool(mode & stat.S_IRUSR) or os.geteuid() == 0


def is_opaque(directory: Path) -> bool:
    """Return whether a directory of an overlay's layer hides the layers below it."""
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


def _set_mode_and_time(path: Path, node: Node) -> None:
    path.chmod(node.mode)
    os.utime(path, ns=(node.mtime_ns, node.mtime_ns))


@dataclass
class _Shown:
    """An entry of a merged directory."""

    mode: int
    sources: list[Path]
    """The directories with this entry; several only if all of them are directories."""
    covers: bool = False
    """Whether this directory hides all further layers."""


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


def _lower_directories(sources: list[Path], name: str) -> list[Path]:
    """Return the directories of this name in stacked directories, as far as they show through."""
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
