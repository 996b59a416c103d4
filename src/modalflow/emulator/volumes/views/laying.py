"""Create the directory of a layer, and merge several into one.

Owns the content of a layer: hard links to the files with the content, folders, symlinks, and whiteouts for removed
paths. A finished layer never changes. These functions work in their caller's thread.
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

from modalflow.emulator.volumes.blocks import BlockStore
from modalflow.emulator.volumes.tree import Node, NodeKind, join, parent

#: Names of overlayfs's extended attributes: root's overlays use the first, those of user namespaces the second.
NAMESPACES = ("trusted", "user")

_linking = threading.Lock()
"""Held while a file's mode and time are settled: two volumes may hold the same content."""


class StoppedError(Exception):
    """The control plane ends: unfinished work is not needed."""


def lay_out(
    folder: Path,
    nodes: Mapping[str, Node | None],
    gone: Collection[str],
    blocks: BlockStore,
    stop: threading.Event,
) -> None:
    """Make the layer. Those ``gone`` are what the layers below it show and the volume no longer has."""
    used = [block for node in nodes.values() if node is not None for block in node.blocks]
    if blocks.use(used):
        # Damaged: not used, so not to be released either.
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
                # In a directory that lies over no other, a container would see the whiteout itself.
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
        # Last, and from the bottom: what is put into a directory changes its time, and needs its mode.
        for path, node in reversed(directories):
            _dress(folder / path, node)
    finally:
        blocks.release(used)


def lay_together(folder: Path, layers: Collection[Path], below: Collection[Path], stop: threading.Event) -> int:
    """Make one layer of several, for above those ``below``."""
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


def place(blocks: BlockStore, node: Node, target: Path) -> None:
    """Put a file of a volume at a path, as a link to its content if that can be. It is not to be written to."""
    content = blocks.content(node.blocks, node.size) if node.blocks and _can_keep(node.mode) else None
    if content is not None:
        with _linking, contextlib.suppress(OSError):
            # OSError: the file system allows no more links to it. Then it is a copy.
            status = os.stat(content)  # noqa: PTH116 (for each of very many files)
            alike = (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (node.mode, node.mtime_ns)
            if not alike and status.st_nlink == 1:
                _dress(content, node)
                alike = True
            if alike:
                os.link(content, target)
                return
    blocks.write_file(node.blocks, node.size, target)
    _dress(target, node)


def dress(descriptor: int, *, mode: int, mtime_ns: int) -> None:
    """Give a new file that keeps content the mode and time of the file that has it: then it can be linked as it is."""
    if _can_keep(mode):
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def _can_keep(mode: int) -> bool:
    """Return whether the control plane can still read a file with this mode."""
    return bool(mode & stat.S_IRUSR) or os.geteuid() == 0


def is_opaque(directory: Path) -> bool:
    """Return whether a directory of an overlay's layer hides the layers below."""
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
