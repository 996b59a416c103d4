"""A writable view of a Volume, and its variant that is a copy.

``View`` is the interface for all other modules. ``CopiedView`` is a plain directory, filled when the container starts,
for containers without support for overlay mounts (overlay_view.py). It owns the directory: it writes a tree into it,
finds the container's changes and applies the commits of others. A view runs in the caller's thread, one call at a time,
and knows no RPC.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modalflow.emulator.volumes.block_store import BlockStore
from modalflow.emulator.volumes.tree import MAX_PATH_BYTES, Node, NodeKind, Tree, join, parent, parents
from modalflow.emulator.volumes.views import safe_paths

#: A file written so recently may be written again with the same time, because file times have a resolution of
#: milliseconds. The next commit therefore reads it again.
RACY_NS = 50_000_000

#: The kernel's errors for a path removed or replaced a moment ago.
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL})

log = logging.getLogger(__name__)


def fits(path: str, warned: set[str]) -> bool:
    """Return whether a Volume can keep this path; if not, log it once for each folder in ``warned``.

    A process can create deeper and deeper paths by changing its current folder, although no process can name them.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return True
    if (above := parent(path)) not in warned:
        warned.add(above)
        log.warning(
            "files in %.80s… are not committed: their path in the Volume is longer than %d bytes",
            above,
            MAX_PATH_BYTES,
        )
    return False


@dataclass(frozen=True)
class Signature:
    """The part of a file's status affected by every change of its content or mode."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class View(Protocol):
    """The view of one Volume in one container."""

    @property
    def root(self) -> Path:
        """Return the container's directory on the host; with layers, the parent of overlayfs's two directories."""

    @property
    def layers(self) -> Sequence[Path]:
        """Return the lower directories of the overlay mount, the uppermost first; none for a plain directory."""

    def changes(self, growing: Collection[str] = ()) -> dict[str, Node | None]:
        """Return the container's changes since the view was last in step: path → node, None if it was removed.

        Blocks of the returned files are counted as used by the caller. Files at the paths of ``growing`` are open and
        will be read again, so only additions must be read. If a file cannot be kept (OSError), the view stays as it
        was, and the next commit finds the same changes.
        """

    def confirm(self, changes: Mapping[str, Node | None]) -> None:
        """Mark these committed changes as in step."""

    def updates(self) -> Mapping[str, Node | None]:
        """Return the commits of others since then, for ``update``: path → node in the Volume."""

    def update(self, wanted: Mapping[str, Node | None], root: Path | None, done: dict[str, Node | None]) -> None:
        """Apply these changes. Files written there by the container meanwhile are lost.

        ``done`` gets every applied change, even if a later one fails; the caller passes it to ``confirm``. ``root`` is
        the mounted directory, as the control plane sees it.
        """


@dataclass(frozen=True)
class _Known:
    node: Node
    signature: Signature | None
    """None if the next commit must read the file again."""


class CopiedView:
    """A container's own copy. ``root`` is mounted in the container."""

    def __init__(self, folder: Path, tree: Tree, blocks: BlockStore, points: Collection[str] = ()) -> None:
        """Create the folders of the view.

        Other Volumes are mounted at ``points``, paths in this Volume. Their content does not belong to this Volume.
        """
        self._points = frozenset(points)
        self._only_above = {above for point in points for above in parents(point) if tree.get(above) is None}
        """Folders created only for the points, until they have other content."""
        self._folder = folder
        self._staging = folder / "staging"
        self.root = folder / "root"
        self.layers: Sequence[Path] = ()
        self._tree, self._blocks = tree, blocks
        self._known: dict[str, _Known] = {}
        self._warned: set[str] = set()
        self._staging.mkdir(parents=True)
        self.root.mkdir()

    def changes(self, growing: Collection[str] = ()) -> dict[str, Node | None]:
        """Return the changes, as ``View.changes`` does, but always read the whole file."""
        changed: dict[str, Node | None] = {}
        before: dict[str, _Known | None] = {}
        try:
            self._find_changes(changed, before)
        except OSError:
            for path, known in before.items():
                self._known.pop(path, None)
                if known is not None:
                    self._known[path] = known
            for node in changed.values():
                self._blocks.release(() if node is None else node.blocks)
            raise
        return changed

    def _find_changes(self, changed: dict[str, Node | None], before: dict[str, _Known | None]) -> None:
        seen: set[str] = set()
        for path, status in self._walk():
            seen.add(path)
            known = self._known.get(path)
            signature = Signature.of(status)
            if known is not None and known.signature == signature:
                continue
            try:
                node = self._read(path, status, known)
            except OSError as error:
                if error.errno not in VANISHED:
                    raise
                # Removed since the walk, and to be reported as such.
                seen.discard(path)
                continue
            before[path] = known
            racy = time.time_ns() - status.st_mtime_ns < RACY_NS
            self._known[path] = _Known(node, None if racy else signature)
            if known is not None and known.node == node:
                self._blocks.release(node.blocks)
            else:
                changed[path] = node
        for path in [path for path in self._known if path not in seen]:
            before[path] = self._known.pop(path)
            changed[path] = None

    def confirm(self, changes: Mapping[str, Node | None]) -> None:
        """Do nothing: ``changes`` has noted them already."""

    def updates(self) -> Mapping[str, Node | None]:
        """Return all nodes of the Volume, and not only the commits of others."""
        return self._tree.nodes()

    def update(self, wanted: Mapping[str, Node | None], root: Path | None, done: dict[str, Node | None]) -> None:
        """Apply changes, as ``View.update`` does, without a mount, and note them here."""
        nodes = {path: node for path, node in wanted.items() if node is not None and not self._is_hidden(path)}
        stale = [path for path, known in self._known.items() if known.node != nodes.get(path)]
        for path in sorted(stale, reverse=True):
            remove_replaced(self.root, path, self._known.pop(path).node, nodes.get(path))
        touched = {parent(path) for path in stale}
        for path in sorted(nodes):
            if path not in self._known:
                self._known[path] = self._write(path, nodes[path])
                touched.update((path, parent(path)))
        for path in sorted(touched, reverse=True):
            # A new entry changes the directory's time.
            if (node := nodes.get(path)) is not None and node.kind is NodeKind.DIRECTORY:
                safe_paths.set_mode_and_time(self.root, path, mtime_ns=node.mtime_ns)

    def holds(self, paths: Iterable[str]) -> bool:
        """Return whether any of these paths, possibly links to open files, leads into the directory."""
        statuses = [self.root.stat(), *(status for _, status in self._walk())]
        inodes = {(status.st_dev, status.st_ino) for status in statuses}
        for path in paths:
            # OSError: closed meanwhile, or a name without a meaning outside of the container.
            with contextlib.suppress(OSError):
                status = Path(path).stat()
                if (status.st_dev, status.st_ino) in inodes:
                    return True
        return False

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield each path with its status, a directory before its content; removed paths are left out."""
        pending = [""]
        while pending:
            directory = pending.pop()
            for name, status in statuses(self.root, directory):
                path = join(directory, name)
                if path in self._points or not fits(path, self._warned):
                    continue
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                    if path in self._only_above and self._holds_only_points(path):
                        continue
                elif not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                    continue  # Volumes keep no sockets, pipes or devices.
                yield path, status

    def _is_hidden(self, path: str) -> bool:
        return bool(self._points) and (path in self._points or not self._points.isdisjoint(parents(path)))

    def _holds_only_points(self, path: str) -> bool:
        found = {join(path, name.name) for name in (self.root / path).iterdir()}
        rest = found - self._points
        return all(each in self._only_above and self._holds_only_points(each) for each in rest)

    def _read(self, path: str, status: os.stat_result, known: _Known | None) -> Node:
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            return Node(NodeKind.DIRECTORY, mode, status.st_mtime_ns)
        if stat.S_ISLNK(status.st_mode):
            target = safe_paths.link_target(self.root, path)
            return Node(NodeKind.LINK, mode, status.st_mtime_ns, size=len(target), target=target)
        with safe_paths.opened(self.root, path) as descriptor:
            blocks, size = self._blocks.keep_file(descriptor, () if known is None else known.node.blocks)
        return Node(NodeKind.FILE, mode, status.st_mtime_ns, size=size, blocks=blocks)

    def _write(self, path: str, node: Node) -> _Known:
        put(self._blocks, node, self.root, path, "file", self._staging)
        if node.kind is NodeKind.DIRECTORY:
            return _Known(node, None)
        with safe_paths.holder(self.root, path) as (name, above):
            return _Known(node, Signature.of(os.stat(name, dir_fd=above, follow_symlinks=False)))


def put(blocks: BlockStore, node: Node, root: Path, path: str, staged: str, staging: Path | None = None) -> None:
    """Put a node of a Volume at a path below ``root``, safe against simultaneous changes by the container.

    A file or a link is created at ``staged``, below ``staging`` or ``root``, and then renamed. No process in the
    container ever reads half a file.
    """
    if node.kind is NodeKind.DIRECTORY:
        with safe_paths.holder(root, path) as (name, above), contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        safe_paths.set_mode_and_time(root, path, mode=node.mode, mtime_ns=node.mtime_ns)
        return
    with safe_paths.holder(staging or root, staged) as (made, there), safe_paths.holder(root, path) as (name, above):
        _remove(made, there)
        try:
            _make(blocks, node, made, there)
            os.replace(made, name, src_dir_fd=there, dst_dir_fd=above)
        except OSError:
            # It would be committed as a file of the container.
            _remove(made, there)
            raise


def _make(blocks: BlockStore, node: Node, name: str, above: int) -> None:
    """Create a missing file or link in an open directory."""
    if node.kind is NodeKind.LINK:
        os.symlink(node.target, name, dir_fd=above)
        os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=above, follow_symlinks=False)
        return
    # O_EXCL: a container could put a link to another file there.
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=above)
    try:
        blocks.write_to(node.blocks, node.size, descriptor)
        os.fchmod(descriptor, node.mode)
        os.utime(descriptor, ns=(node.mtime_ns, node.mtime_ns))
    finally:
        os.close(descriptor)


def _remove(name: str, above: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=above)


def remove_replaced(root: Path, path: str, old: Node | None, new: Node | None) -> bool:
    """Remove the old node below ``root`` unless the new one replaces it; return whether it was removed."""
    if old is None or (new is not None and (new.kind is NodeKind.DIRECTORY) == (old.kind is NodeKind.DIRECTORY)):
        # A file with new content is replaced in one step, after it is written.
        return False
    with contextlib.suppress(FileNotFoundError), safe_paths.holder(root, path) as (name, above):
        if old.kind is not NodeKind.DIRECTORY:
            os.unlink(name, dir_fd=above)
        elif new is None:
            # Not empty: the container put a file there a moment ago, and its commit restores the directory.
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)
        else:
            shutil.rmtree(name, ignore_errors=True, dir_fd=above)
    return True


def statuses(root: Path, directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names and statuses in a directory below ``root``; removed entries are left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), safe_paths.opened(root, directory) as descriptor:
        for name in os.listdir(descriptor):  # noqa: PTH208 (pathlib takes no descriptor)
            with contextlib.suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=descriptor, follow_symlinks=False)
