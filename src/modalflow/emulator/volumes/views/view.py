"""A writable view of a Volume, and its variant that is a copy.

``View`` is all that the rest knows of one. ``CopiedView`` is a plain directory, filled when the container starts, for
containers that can have no overlay mount (overlay.py). It owns the directory: laying a tree out in it, finding what the
container changed, bringing in what others committed. A view works in whichever thread calls it, one at a time, and
knows no RPC.
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

from modalflow.emulator.volumes.blocks import BlockStore
from modalflow.emulator.volumes.tree import MAX_PATH_BYTES, Node, NodeKind, Tree, join, parent, parents
from modalflow.emulator.volumes.views import beneath

#: A file written so recently can be written again without a change of its time (the clock of file times ticks in
#: milliseconds). So the next commit reads it once more.
RACY_NS = 50_000_000

#: The kernel's errors for a path with other content than a moment ago, or none.
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL})

log = logging.getLogger(__name__)


def fits(path: str, warned: set[str]) -> bool:
    """Return whether a Volume can keep what stands at that path; if not, log it once for each folder in ``warned``.

    A process that changes its current folder again and again makes paths that no other one can name.
    """
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return True
    if (above := parent(path)) not in warned:
        warned.add(above)
        log.warning(
            "what is in %.80s… is not committed: its path in the Volume is longer than %d bytes",
            above,
            MAX_PATH_BYTES,
        )
    return False


@dataclass(frozen=True)
class Signature:
    """What changes about a file whenever its content or its mode does."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class View(Protocol):
    """One container's view of one volume."""

    @property
    def root(self) -> Path:
        """The directory on the host that the container is to have; with layers, two that overlayfs is to have."""

    @property
    def layers(self) -> Sequence[Path]:
        """The directories that an overlay mount is to show below, the uppermost first; none for a plain directory."""

    def changes(self, growing: Collection[str] = ()) -> dict[str, Node | None]:
        """Return what the container changed since the view was last in step: path → what is there now, None if gone.

        Blocks of the files returned are counted as used by the caller. Of files at the paths of ``growing``, which are
        open and will be read again, it is enough to read what was added. If a file cannot be kept (OSError), the
        view is as it was: the next commit finds the same changes.
        """

    def agree(self, changes: Mapping[str, Node | None]) -> None:
        """Record that the changes are committed: the view is in step in these."""

    def behind(self) -> Mapping[str, Node | None]:
        """Return what others committed since: path → what is there in the volume, for ``update``."""

    def update(self, wanted: Mapping[str, Node | None], root: Path | None, done: dict[str, Node | None]) -> None:
        """Bring that in. What the container wrote there meanwhile is lost.

        ``done`` gets what has been brought in, also if the rest cannot be: the view is to ``agree`` with that.
        ``root`` is the directory that the container has mounted, as the control plane sees it.
        """


@dataclass(frozen=True)
class _Known:
    node: Node
    signature: Signature | None
    """None if the next commit must read the file again."""


class CopiedView:
    """A container's own copy. ``root`` is what the container has mounted."""

    def __init__(self, folder: Path, tree: Tree, blocks: BlockStore, points: Collection[str] = ()) -> None:
        """At ``points``, paths in the volume, others are mounted: what stands there is none of the volume's."""
        self._points = frozenset(points)
        self._only_above = {above for point in points for above in parents(point) if tree.get(above) is None}
        """Folders that are there because of the points alone, until there is something else in them."""
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
        """As ``View.changes``; it always reads all of a file."""
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
                # Gone since the walk: to be reported as such, not as unchanged.
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

    def agree(self, changes: Mapping[str, Node | None]) -> None:
        """Do nothing: ``changes`` has noted them already."""

    def behind(self) -> Mapping[str, Node | None]:
        """As ``View.behind``, but all that the volume holds."""
        return self._tree.nodes()

    def update(self, wanted: Mapping[str, Node | None], root: Path | None, done: dict[str, Node | None]) -> None:
        """As ``View.update``. The directory needs no mount to be written to, and what is done is noted here."""
        nodes = {path: node for path, node in wanted.items() if node is not None and not self._is_hidden(path)}
        stale = [path for path, known in self._known.items() if known.node != nodes.get(path)]
        for path in sorted(stale, reverse=True):
            make_way(self.root, path, self._known.pop(path).node, nodes.get(path))
        touched = {parent(path) for path in stale}
        for path in sorted(nodes):
            if path not in self._known:
                self._known[path] = self._write(path, nodes[path])
                touched.update((path, parent(path)))
        for path in sorted(touched, reverse=True):
            # What is put into a directory changes its time.
            if (node := nodes.get(path)) is not None and node.kind is NodeKind.DIRECTORY:
                beneath.dress(self.root, path, mtime_ns=node.mtime_ns)

    def holds(self, paths: Iterable[str]) -> bool:
        """Return whether any of these paths, which may be links to open files, leads into the directory."""
        statuses = [self.root.stat(), *(status for _, status in self._walk())]
        inodes = {(status.st_dev, status.st_ino) for status in statuses}
        for path in paths:
            # OSError: closed meanwhile, or a name that means nothing outside of the container.
            with contextlib.suppress(OSError):
                status = Path(path).stat()
                if (status.st_dev, status.st_ino) in inodes:
                    return True
        return False

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield each path with its status, a directory before what is in it; what vanishes meanwhile is left out."""
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
            target = beneath.link_target(self.root, path)
            return Node(NodeKind.LINK, mode, status.st_mtime_ns, size=len(target), target=target)
        with beneath.opened(self.root, path) as descriptor:
            blocks, size = self._blocks.keep_file(descriptor, () if known is None else known.node.blocks)
        return Node(NodeKind.FILE, mode, status.st_mtime_ns, size=size, blocks=blocks)

    def _write(self, path: str, node: Node) -> _Known:
        put(self._blocks, node, self.root, path, "file", self._staging)
        if node.kind is NodeKind.DIRECTORY:
            return _Known(node, None)
        with beneath.holder(self.root, path) as (name, above):
            return _Known(node, Signature.of(os.stat(name, dir_fd=above, follow_symlinks=False)))


def put(blocks: BlockStore, node: Node, root: Path, path: str, staged: str, staging: Path | None = None) -> None:
    """Put a node of a volume at a path below ``root``, safe against parallel changes by the container.

    A file or a link is made at ``staged``, a path below ``staging`` if that is not ``root``, and renamed into place: no
    process in the container ever reads half a file.
    """
    if node.kind is NodeKind.DIRECTORY:
        with beneath.holder(root, path) as (name, above), contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        beneath.dress(root, path, mode=node.mode, mtime_ns=node.mtime_ns)
        return
    with beneath.holder(staging or root, staged) as (made, there), beneath.holder(root, path) as (name, above):
        _remove(made, there)
        try:
            _make(blocks, node, made, there)
            os.replace(made, name, src_dir_fd=there, dst_dir_fd=above)
        except OSError:
            # It would be committed as a file of the container's.
            _remove(made, there)
            raise


def _make(blocks: BlockStore, node: Node, name: str, above: int) -> None:
    """Make a file or a link that is not there, in a directory that is open."""
    if node.kind is NodeKind.LINK:
        os.symlink(node.target, name, dir_fd=above)
        os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=above, follow_symlinks=False)
        return
    # Made by this call, or not at all: a container could put a link to something else there.
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


def make_way(root: Path, path: str, old: Node | None, new: Node | None) -> bool:
    """Remove what was at a path below ``root`` unless what is to come replaces it; return whether it was removed."""
    if old is None or (new is not None and (new.kind is NodeKind.DIRECTORY) == (old.kind is NodeKind.DIRECTORY)):
        # A file that gets another content is replaced in one step, when that is written.
        return False
    with contextlib.suppress(FileNotFoundError), beneath.holder(root, path) as (name, above):
        if old.kind is not NodeKind.DIRECTORY:
            os.unlink(name, dir_fd=above)
        elif new is None:
            # Not empty: the container put something there a moment ago, which brings the directory back at its commit.
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)
        else:
            shutil.rmtree(name, ignore_errors=True, dir_fd=above)
    return True


def statuses(root: Path, directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names in a directory below ``root`` and what stands there; what vanishes meanwhile is left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), beneath.opened(root, directory) as descriptor:
        for name in os.listdir(descriptor):  # noqa: PTH208 (pathlib takes no descriptor)
            with contextlib.suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=descriptor, follow_symlinks=False)
