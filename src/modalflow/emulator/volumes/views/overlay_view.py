"""A view as an overlay mount: a container's writes above the committed layers.

Owns the directory of the container's writes (overlayfs's upper layer) and its meaning. It finds files changed, removed,
moved, or given another mode or time, since the view was last in step. Files with an unchanged status are not read. The
container's first process makes the mount, and the commits of others are written through it, as a process of the
container would do. It runs in the caller's thread, one call at a time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from modalflow.emulator.volumes.block_store import BLOCK_BYTES, BlockStore
from modalflow.emulator.volumes.tree import Node, NodeKind, Snapshot, Tree, join, parent
from modalflow.emulator.volumes.views import safe_paths
from modalflow.emulator.volumes.views.layer_files import set_mode_and_time
from modalflow.emulator.volumes.views.view import RACY_NS, VANISHED, Signature, fits, put, remove_replaced, statuses
from modalflow.emulator.volumes.views.volume_layers import Lower

#: The temporary name of a file being written into a container's view.
_STAGED = ".modalflow-incoming"


@dataclass(frozen=True)
class _Content:
    """The content of a file when it was last read."""

    signature: Signature
    node: Node
    is_certain: bool
    """Whether the whole content is known, and cannot have changed without a change of the signature."""


@dataclass(frozen=True)
class _Found:
    """An entry of the view: a file of the upper layer with its status, or one of the layers below."""

    path: str
    status: os.stat_result | None
    lower: str | None
    """Its origin in the layers below."""
    node: Node | None = None


class OverlayView:
    """One container's view, over ``lower``. Its folder holds overlayfs's two directories."""

    def __init__(self, folder: Path, tree: Tree, lower: Lower, blocks: BlockStore, attributes: str) -> None:
        """Create the folders of the view.

        ``attributes`` is the name space of the attributes of its mount; a container may write the other.
        """
        self._attributes = attributes
        self.root = folder
        self.layers = [layer.folder for layer in lower.layers]
        self._upper = folder / "upper"
        self._tree, self._lower, self._blocks = tree, lower.files, blocks
        self._step: Snapshot = lower.step
        self._contents: dict[int, _Content] = {}
        self._shown: set[str] = set()
        self._away: set[str] = set()
        """Lower directories moved away from their own paths when the view was last read."""
        self._warned: set[str] = set()
        for made in (self._upper, folder / "work"):
            made.mkdir(parents=True)
        self._upper.chmod(0o755)

    def changes(self, growing: Collection[str] = ()) -> dict[str, Node | None]:
        """Return the container's changes since the view was last in step: path → node, None if it was removed.

        Blocks of the returned files are counted as used by the caller. Files at the paths of ``growing`` are open and
        will be read again: if one only became longer, only the addition is read. If a file cannot be kept, the next
        commit finds the same changes.
        """
        changed: dict[str, Node | None] = {}
        try:
            self._find_changes(changed, growing)
        except OSError:
            for node in changed.values():
                self._blocks.release(() if node is None else node.blocks)
            raise
        return changed

    def _find_changes(self, changed: dict[str, Node | None], growing: Collection[str]) -> None:
        contents: dict[int, _Content] = {}
        shown: set[str] = set()
        implied: set[str] = set()
        gone: set[str] = set()
        away: set[str] = set()
        for found in self._walk(gone, away):
            try:
                node = found.node or self._node(found, contents, found.path in growing)
            except OSError as error:
                if error.errno not in VANISHED:
                    raise
                # Removed since the walk, and to be reported as such.
                continue
            # A directory back at its own path needs nothing of the upper layer to stay there.
            (implied if found.status is None and found.lower == found.path else shown).add(found.path)
            if node is None:
                continue
            if node == self._step.get(found.path):
                self._blocks.release(node.blocks)
            else:
                changed[found.path] = node
        for path in (gone | self._shown) - shown - implied:
            if path not in changed and self._step.get(path) is not None:
                changed[path] = None
        self._contents, self._shown, self._away = contents, shown, away

    def confirm(self, changes: Mapping[str, Node | None]) -> None:
        """Mark these committed changes as in step."""
        for path, node in changes.items():
            self._step.set(path, node)

    def updates(self) -> dict[str, Node | None]:
        """Return the commits of others, as ``View.updates`` does: the paths changed by others."""
        wanted = {path: self._tree.get(path) for path in self._step.differences()}
        return {path: node for path, node in wanted.items() if node != self._step.get(path)}

    def update(self, wanted: Mapping[str, Node | None], root: Path | None, done: dict[str, Node | None]) -> None:
        """Apply changes, as ``View.update`` does, through the mount, as a process of the container would."""
        if root is None:
            raise OSError(errno.ESTALE, "the container is not running, so its volume cannot be updated")
        for path in sorted(wanted, reverse=True):
            if remove_replaced(root, path, self._step.get(path), wanted[path]):
                done[path] = None
            self._shown.discard(path)
        touched: set[str] = set()
        for path in sorted(wanted):
            touched.update((path, parent(path)))
            if (node := wanted[path]) is not None:
                put(self._blocks, node, root, path, join(parent(path), _STAGED))
                self._shown.add(path)
            done[path] = node
        for path in sorted(touched, reverse=True):
            # A new entry changes the directory's time.
            node = wanted[path] if path in wanted else self._step.get(path)
            if node is not None and node.kind is NodeKind.DIRECTORY:
                safe_paths.set_mode_and_time(root, path, mtime_ns=node.mtime_ns)

    # The upper layer

    def _walk(self, gone: set[str], away: set[str]) -> Iterator[_Found]:
        """Yield the entries of the upper layer, a directory before its content. ``gone`` gets the removed paths.

        ``away`` gets the lower directories without an entry at their own paths.
        """
        pending: list[tuple[str, str | None, bool]] = [("", "", False)]
        while pending:
            path, lower, is_new = pending.pop()
            if is_new:
                gone.update(self._step.under(path))
            names: set[str] = set()
            for name, status in statuses(self._upper, path):
                names.add(name)
                here = join(path, name)
                if not fits(here, self._warned):
                    continue
                is_directory = stat.S_ISDIR(status.st_mode)
                below = self._lies_over(here, name, lower) if is_directory else None
                if below != here and self._is_directory_below(here):
                    away.add(here)
                if is_directory:
                    yield _Found(here, status, below)
                    # The former entry and its content are gone, except the entries found next. If this directory
                    # covered it before, the lower content is still shown.
                    pending.append((here, below, below != here or is_new or here in self._away))
                    continue
                if not is_new:
                    # Also for a new pipe or socket, because Volumes do not keep those.
                    gone.update((here, *self._step.under(here)))
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    yield _Found(here, status, None if lower is None else join(lower, name))
            if is_new and lower is not None:
                yield from self._moved(path, lower, names)

    def _is_directory_below(self, path: str) -> bool:
        node = self._lower.get(path)
        return node is not None and node.kind is NodeKind.DIRECTORY

    def _moved(self, path: str, lower: str, but: set[str]) -> Iterator[_Found]:
        """Yield the lower content of a moved directory."""
        for name in self._lower.names(lower):
            if name not in but:
                start = join(lower, name)
                for below in (start, *self._lower.under(start)):
                    if (node := self._lower.get(below)) is not None:
                        yield _Found(join(path, name) + below[len(start) :], None, below, self._used(below, node))

    def _lies_over(self, upper: str, name: str, lower: str | None) -> str | None:
        """Return the lower directory covered by a directory of the upper layer; None if there is none."""
        if self._attribute(upper, "opaque") == b"y":
            return None
        below = self._redirected(upper, name, lower)
        return below if below is not None and self._is_directory_below(below) else None

    def _redirected(self, upper: str, name: str, lower: str | None) -> str | None:
        moved = self._attribute(upper, "redirect")
        if moved is None:
            return None if lower is None else join(lower, name)
        if moved.startswith(b"/"):
            return os.fsdecode(moved).strip("/")
        return None if lower is None else join(lower, os.fsdecode(moved))

    def _attribute(self, path: str, name: str) -> bytes | None:
        # A symlink on the way would be followed, without harm: the attribute is only a key into the Volume.
        try:
            return os.getxattr(self._upper / path, f"{self._attributes}.overlay.{name}", follow_symlinks=False)
        except OSError:
            return None

    def _used(self, below: str, node: Node) -> Node:
        """Count the caller as a user of a lower file, also if the Volume no longer has it."""
        if not self._blocks.use(node.blocks):
            return node
        for layer in self.layers:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), (layer / below).open("rb") as file:
                blocks, _ = self._blocks.keep_file(file.fileno())
                return replace(node, blocks=blocks)
        raise OSError(errno.EIO, "the content of a file is missing", below)

    def _node(self, found: _Found, contents: dict[int, _Content], is_growing: bool) -> Node | None:
        """Return the entry, with its blocks counted; None for a file unchanged since the view was in step."""
        assert found.status is not None
        status = found.status
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            return Node(NodeKind.DIRECTORY, mode, status.st_mtime_ns)
        if stat.S_ISLNK(status.st_mode):
            target = safe_paths.link_target(self._upper, found.path)
            return Node(NodeKind.LINK, mode, status.st_mtime_ns, size=len(target), target=target)
        known = contents.get(status.st_ino) or self._contents.get(status.st_ino)
        signature = Signature.of(status)
        if known is not None and known.signature == signature and (known.is_certain or is_growing):
            contents[status.st_ino] = known
            if known.node == self._step.get(found.path):
                # Not counted: if others have committed another file there, the blocks of this one may be gone.
                return None
            if not self._blocks.use(known.node.blocks):
                return known.node
        node, is_whole = self._read(found, status, known, is_growing)
        racy = time.time_ns() - status.st_mtime_ns < RACY_NS
        contents[status.st_ino] = _Content(signature, node, is_whole and not racy)
        return node

    def _read(
        self, found: _Found, status: os.stat_result, known: _Content | None, is_growing: bool
    ) -> tuple[Node, bool]:
        """Return the file, and whether all of it was compared or read."""
        mode = stat.S_IMODE(status.st_mode)
        if self._attribute(found.path, "metacopy") is not None:
            # Only its mode, owner or time were changed: the content is in the lower layer.
            below = self._redirected(found.path, found.path.rpartition("/")[2], found.lower and parent(found.lower))
            node = None if below is None else self._lower.get(below)
            if below is None or node is None or node.kind is not NodeKind.FILE:
                raise OSError(errno.EIO, "the content of a file with a new mode or time is unknown", found.path)
            return replace(self._used(below, node), mode=mode, mtime_ns=status.st_mtime_ns), True
        earlier: Node | None = known.node if known is not None else self._step.get(found.path)
        blocks = earlier.blocks if earlier is not None and earlier.kind is NodeKind.FILE else ()
        trusted = 0
        if is_growing and known is not None and status.st_size > known.node.size:
            # Except the last block, because it may have been incomplete.
            trusted = known.node.size // BLOCK_BYTES
        with safe_paths.opened(self._upper, found.path) as descriptor:
            if trusted and not self._blocks.begins_with(descriptor, blocks[0]):
                # A database changes its first page with each write, so it has not only grown.
                trusted = 0
            prepare = functools.partial(set_mode_and_time, mode=mode, mtime_ns=status.st_mtime_ns)
            kept, size = self._blocks.keep_file(descriptor, blocks, trusted, prepare)
        return Node(NodeKind.FILE, mode, status.st_mtime_ns, size=size, blocks=kept), not trusted
