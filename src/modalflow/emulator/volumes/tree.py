"""The content of a Volume as a value: a table of paths, without I/O.

Owns the rules of the tree (every parent is a directory, a file cannot replace a directory) and the path arithmetic.
Paths are relative and without ``.``: ``a/b``; the root is ``""``.

The SDK turns NOT_FOUND into FileNotFoundError and ALREADY_EXISTS into FileExistsError (modal/volume.py) and shows the
message unchanged. The messages, and INVALID_ARGUMENT for all other errors, are inferred.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from grpclib import GRPCError, Status

from modalflow.emulator.volumes.views.links import resolve

#: Linux's limits (NAME_MAX, PATH_MAX): a container's view could not hold a longer path. The limit is below PATH_MAX,
#: because the view's own path comes first.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3_500


class NodeKind(enum.Enum):
    """The kind of an entry."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


@dataclass(frozen=True)
class Node:
    """The entry at a path. ``blocks`` are a file's content, ``target`` is a link's target."""

    kind: NodeKind
    mode: int
    mtime_ns: int
    size: int = 0
    blocks: tuple[str, ...] = ()
    target: str = ""

    @property
    def is_directory(self) -> bool:
        return self.kind is NodeKind.DIRECTORY


def normalise(path: str) -> str:
    """Return a client's path in this module's form; INVALID_ARGUMENT if it leaves the Volume."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} leaves the volume; expected a path without '..'")
    if "\0" in path or len(path.encode()) > MAX_PATH_BYTES or any(len(p.encode()) > MAX_NAME_BYTES for p in parts):
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"{path[:100]!r} cannot be the path of a file; expected at most {MAX_PATH_BYTES} bytes, {MAX_NAME_BYTES} "
            "in a name, and no NUL",
        )
    return "/".join(parts)


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def split(path: str) -> tuple[str, str]:
    """Return a path's directory and its name there."""
    above, _, name = path.rpartition("/")
    return above, name


def join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, nearest first, without the root."""
    while path := parent(path):
        yield path


class Tree:
    """The paths of one Volume and their nodes. ``changed`` is called with each changed path and its new node.

    Only one thread changes the tree. Others may read single paths, names and a ``Snapshot`` meanwhile.
    """

    def __init__(
        self, nodes: Mapping[str, Node] | None = None, changed: Callable[[str, Node | None], None] | None = None
    ) -> None:
        self._nodes: dict[str, Node] = dict(nodes or {})
        self._names: dict[str, dict[str, None]] = {}
        for path in self._nodes:
            self._name(path)
        self._changed = changed or (lambda _path, _node: None)
        self._snapshots: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._nodes)

    def nodes(self) -> dict[str, Node]:
        """Return a copy of the table."""
        return dict(self._nodes)

    def get(self, path: str) -> Node | None:
        return self._nodes.get(path)

    def names(self, directory: str) -> list[str]:
        """Return the names of a directory's entries, in no order."""
        return list(self._names.get(directory, ()))

    def snapshot(self) -> Snapshot:
        """Return the tree's present content, unaffected by later changes until ``release``. Nothing is copied."""
        snapshot = Snapshot(self)
        self._snapshots.append(snapshot)
        return snapshot

    def release(self, snapshot: Snapshot) -> None:
        """Release a snapshot. Repeating it is harmless."""
        if snapshot in self._snapshots:
            self._snapshots.remove(snapshot)

    def find(self, path: str) -> Node:
        """Return the node at a path; NOT_FOUND if there is none."""
        node = self._nodes.get(path)
        if node is None:
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {path!r}")
        return node

    def file(self, path: str) -> Node:
        """Return the file at a path, through links; NOT_FOUND or INVALID_ARGUMENT if there is none."""
        place = resolve(self.get, path)
        if self.is_directory(place):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is a directory; expected a file")
        return self.find(place)

    def is_directory(self, path: str) -> bool:
        return path == "" or ((node := self._nodes.get(path)) is not None and node.kind is NodeKind.DIRECTORY)

    def under(self, path: str) -> list[str]:
        """Return every path below a directory, each parent before its content. The cost grows with their number."""
        return sorted(_below(path, self.names))

    def children(self, path: str) -> list[str]:
        return sorted(join(path, name) for name in self._names.get(path, ()))

    def listed(self, path: str, recursive: bool) -> list[tuple[str, Node]]:
        """Return the listing of a path, as ls shows it: a directory's content, or the node itself.

        A link to a directory shows the directory's content, below the link's own path. No other link is followed.
        """
        place = itself = resolve(self.get, path, last=False)
        if (standing := self.get(itself)) is not None and standing.kind is NodeKind.LINK:
            with contextlib.suppress(GRPCError):
                place = resolve(self.get, itself)
        if not self.is_directory(place):
            return [(path, self.find(itself))]
        shown = self.under(place) if recursive else self.children(place)
        below = len(place) + 1 if place else 0
        return [(f"{path}/{p[below:]}" if path else p, self._nodes[p]) for p in shown]

    def place(self, path: str) -> str:
        """Return the place for a new or a removed node at this path; the last name is not followed."""
        return resolve(self.get, path, last=False, may_be_missing=True)

    def check_place(self, path: str, overwrite: bool) -> None:
        """Raise ALREADY_EXISTS unless a file may be put there."""
        if not path:
            raise GRPCError(Status.INVALID_ARGUMENT, "A file needs a name; its path is the root of the volume")
        for above in parents(path):
            if (node := self._nodes.get(above)) is not None and node.kind is not NodeKind.DIRECTORY:
                raise GRPCError(Status.ALREADY_EXISTS, f"{above!r} is a file: nothing can be put below it")
        existing = self._nodes.get(path)
        if existing is None:
            return
        if existing.kind is NodeKind.DIRECTORY:
            raise GRPCError(Status.ALREADY_EXISTS, f"{path!r} is a directory: a file cannot replace it")
        if not overwrite:
            raise GRPCError(Status.ALREADY_EXISTS, f"{path!r} already exists; pass force=True to replace it")

    def put(self, path: str, node: Node) -> list[Node]:
        """Place a node and its missing directories; return the replaced nodes."""
        gone: list[Node] = []
        for above in parents(path):
            standing = self._nodes.get(above)
            if standing is not None and standing.kind is NodeKind.DIRECTORY:
                break
            if standing is not None:
                gone.append(standing)
            self._set(above, Node(NodeKind.DIRECTORY, 0o755, node.mtime_ns))
        if node.kind is not NodeKind.DIRECTORY:
            gone += [self._pop(p) for p in self.under(path)] if self.is_directory(path) else []
        if (replaced := self._nodes.get(path)) is not None:
            gone.append(replaced)
        self._set(path, node)
        return gone

    def discard(self, path: str) -> list[Node]:
        """Remove the node at a path, a directory only if it is empty; return the removed nodes."""
        if path not in self._nodes or self._names.get(path):
            return []
        return [self._pop(path)]

    def remove(self, path: str, recursive: bool) -> list[Node]:
        """Remove a file, a directory with its content, or a link without its target; return the removed nodes."""
        path = self.place(path)
        if not self.is_directory(path):
            self.find(path)
            return [self._pop(path)]
        if not recursive:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is a directory; pass recursive=True to remove it")
        return [self._pop(p) for p in [*self.under(path), *([path] if path else [])]]

    def copies(self, sources: Iterable[str], target: str, recursive: bool, into: bool) -> dict[str, Node]:
        """Return the new nodes of a copy, by path, as cp would create them.

        ``into``: the target was written with a ``/``.
        """
        sources = list(sources)
        target = resolve(self.get, target, may_be_missing=True)
        inside = self.is_directory(target)
        if not inside and (into or len(sources) > 1):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{target!r} is not a directory")
        if not inside and not self.is_directory(parent(target)):
            raise GRPCError(Status.NOT_FOUND, f"No such directory: {parent(target)!r}")
        placed: dict[str, Node] = {}
        for source in sources:
            name = source.rpartition("/")[2]
            # As cp: with recursive=True, links are copied as links.
            source = resolve(self.get, source, last=not recursive)
            if not source:
                raise GRPCError(Status.INVALID_ARGUMENT, "The root of the Volume cannot be copied into itself")
            node = self.find(source)
            place = f"{target}/{name}".lstrip("/") if inside else target
            if node.kind is not NodeKind.DIRECTORY:
                placed[place] = node
                continue
            if not recursive:
                raise GRPCError(Status.INVALID_ARGUMENT, f"{source!r} is a directory; pass recursive=True to copy it")
            if place == source or place.startswith(f"{source}/"):
                raise GRPCError(Status.INVALID_ARGUMENT, f"{source!r} cannot be copied into itself")
            placed[place] = node
            placed |= {place + p[len(source) :]: self._nodes[p] for p in self.under(source)}
        for place, node in placed.items():
            if node.kind is not NodeKind.DIRECTORY:
                self.check_place(place, overwrite=True)
        return placed

    def _set(self, path: str, node: Node) -> None:
        old = self._nodes.get(path)
        for snapshot in self._snapshots:
            snapshot.note(path, old)
        self._nodes[path] = node
        if old is None:
            self._name(path)
        self._changed(path, node)

    def _pop(self, path: str) -> Node:
        node = self._nodes[path]
        for snapshot in self._snapshots:
            snapshot.note(path, node)
        del self._nodes[path]
        above, name = split(path)
        names = self._names[above]
        del names[name]
        if not names:
            del self._names[above]
        self._changed(path, None)
        return node

    def _name(self, path: str) -> None:
        above, name = split(path)
        self._names.setdefault(above, {})[name] = None


class Snapshot:
    """The content of a tree at some moment, or of a view: the tree as it is, except for the differences noted here.

    Its size is the number of differences or changed paths, not the number of paths.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._before: dict[str, Node | None] = {}
        self._names: dict[str, set[str]] = {}

    def note(self, path: str, old: Node | None) -> None:
        """Note the node before a change. Only the first change since the moment counts."""
        if path not in self._before:
            self._put(path, old)

    def set(self, path: str, node: Node | None) -> None:
        """Set the node at a path, whether or not the tree has the same."""
        if self._tree.get(path) is node:
            self._before.pop(path, None)
        else:
            self._put(path, node)

    def differences(self) -> list[str]:
        """Return the paths at which the tree may differ from this."""
        return list(self._before)

    def get(self, path: str) -> Node | None:
        # The tree first, because it may change meanwhile, and then the node before such a change.
        node = self._tree.get(path)
        return self._before.get(path, node)

    def names(self, directory: str) -> list[str]:
        """Return the names of a directory's entries, in no order."""
        noted = self._names.get(directory)
        if noted is None:
            return self._tree.names(directory)
        names = {*self._tree.names(directory), *set(noted)}
        return [name for name in names if self.get(join(directory, name)) is not None]

    def under(self, path: str) -> list[str]:
        """Return every path below a directory, in no order."""
        return list(_below(path, self.names))

    def _put(self, path: str, node: Node | None) -> None:
        above, name = split(path)
        self._names.setdefault(above, set()).add(name)
        self._before[path] = node


def _below(path: str, names: Callable[[str], list[str]]) -> Iterator[str]:
    pending = [path]
    while pending:
        directory = pending.pop()
        for name in names(directory):
            found = join(directory, name)
            yield found
            pending.append(found)
