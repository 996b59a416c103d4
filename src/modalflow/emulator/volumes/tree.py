"""The content of a Volume as a value: a table of paths, without I/O.

Owns the rules of the tree (every parent is a directory, what may overwrite what) and the path arithmetic. Paths are
relative and without ``.``: ``a/b``; the root is ``""``.

The SDK turns NOT_FOUND into FileNotFoundError and ALREADY_EXISTS into FileExistsError (modal/volume.py) and shows the
text unchanged. The texts, and INVALID_ARGUMENT for the rest, are inferred.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from grpclib import GRPCError, Status

from modalflow.emulator.volumes.views.links import followed

#: Linux's own (NAME_MAX, PATH_MAX): a longer one could not be in a container's view. Less than PATH_MAX, because the
#: view's own path comes before it.
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 3_500


class NodeKind(enum.Enum):
    """What stands at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"


@dataclass(frozen=True)
class Node:
    """What stands at a path. ``blocks`` are a file's content, ``target`` is where a link points."""

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
    """Return a client's path in this module's form; INVALID_ARGUMENT where it leaves the volume."""
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
    """Return the directory of a path, and its name there."""
    above, _, name = path.rpartition("/")
    return above, name


def join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, nearest first, without the root."""
    while path := parent(path):
        yield path


class Tree:
    """The paths of one volume and what stands there. ``changed`` is called with each path and what now stands there.

    One thread changes it; others may read single paths, names and a ``Past`` meanwhile.
    """

    def __init__(
        self, nodes: Mapping[str, Node] | None = None, changed: Callable[[str, Node | None], None] | None = None
    ) -> None:
        self._nodes: dict[str, Node] = dict(nodes or {})
        self._names: dict[str, dict[str, None]] = {}
        for path in self._nodes:
            self._name(path)
        self._changed = changed or (lambda _path, _node: None)
        self._pasts: list[Past] = []

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

    def remember(self) -> Past:
        """Return the tree's current content, unaffected by later changes, until ``forget``. Costs no copy."""
        past = Past(self)
        self._pasts.append(past)
        return past

    def forget(self, past: Past) -> None:
        """Keep that past no longer. Repeating it is harmless."""
        if past in self._pasts:
            self._pasts.remove(past)

    def find(self, path: str) -> Node:
        """Return what stands at a path; NOT_FOUND if nothing does."""
        node = self._nodes.get(path)
        if node is None:
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {path!r}")
        return node

    def file(self, path: str) -> Node:
        """Return the file at a path, through links; NOT_FOUND or INVALID_ARGUMENT if there is none."""
        place = followed(self.get, path)
        if self.is_directory(place):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is a directory; expected a file")
        return self.find(place)

    def is_directory(self, path: str) -> bool:
        return path == "" or ((node := self._nodes.get(path)) is not None and node.kind is NodeKind.DIRECTORY)

    def under(self, path: str) -> list[str]:
        """Return every path below a directory, a parent before what is in it. Costs what is below it."""
        return sorted(_below(path, self.names))

    def children(self, path: str) -> list[str]:
        return sorted(join(path, name) for name in self._names.get(path, ()))

    def listed(self, path: str, recursive: bool) -> list[tuple[str, Node]]:
        """Return what a listing of that path shows, as ls does: a directory's content, or what stands there itself.

        A link to a directory shows what is in that, below the link's own path; no other link is followed.
        """
        place = itself = followed(self.get, path, last=False)
        if (standing := self.get(itself)) is not None and standing.kind is NodeKind.LINK:
            with contextlib.suppress(GRPCError):
                place = followed(self.get, itself)
        if not self.is_directory(place):
            return [(path, self.find(itself))]
        shown = self.under(place) if recursive else self.children(place)
        below = len(place) + 1 if place else 0
        return [(f"{path}/{p[below:]}" if path else p, self._nodes[p]) for p in shown]

    def place(self, path: str) -> str:
        """Return where something that is put at that path, or removed there, stands; that itself is not followed."""
        return followed(self.get, path, last=False, may_be_missing=True)

    def check_place(self, path: str, overwrite: bool) -> None:
        """ALREADY_EXISTS unless a file may be put there."""
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
        """Place a node, making way and directories for it; return what had to go."""
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
        """Remove what stands at a path, a directory only if nothing is in it; return what went."""
        if path not in self._nodes or self._names.get(path):
            return []
        return [self._pop(path)]

    def remove(self, path: str, recursive: bool) -> list[Node]:
        """Remove a file, or a directory and all in it, or a link and nothing of what it points at; return what went."""
        path = self.place(path)
        if not self.is_directory(path):
            self.find(path)
            return [self._pop(path)]
        if not recursive:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is a directory; pass recursive=True to remove it")
        return [self._pop(p) for p in [*self.under(path), *([path] if path else [])]]

    def copies(self, sources: Iterable[str], target: str, recursive: bool, into: bool) -> dict[str, Node]:
        """Return what a copy, as cp does it, would place where. ``into``: the target was written with a ``/``."""
        sources = list(sources)
        target = followed(self.get, target, may_be_missing=True)
        inside = self.is_directory(target)
        if not inside and (into or len(sources) > 1):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{target!r} is not a directory")
        if not inside and not self.is_directory(parent(target)):
            raise GRPCError(Status.NOT_FOUND, f"No such directory: {parent(target)!r}")
        placed: dict[str, Node] = {}
        for source in sources:
            name = source.rpartition("/")[2]
            # As cp does it: recursively, links are copied as links.
            source = followed(self.get, source, last=not recursive)
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
        for past in self._pasts:
            past.note(path, old)
        self._nodes[path] = node
        if old is None:
            self._name(path)
        self._changed(path, node)

    def _pop(self, path: str) -> Node:
        node = self._nodes[path]
        for past in self._pasts:
            past.note(path, node)
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


class Past:
    """What a tree held at a moment, or what a view of it holds: the tree as it is, except for what is noted here.

    Its size is the number of paths that differ or changed meanwhile, not the number of paths.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._before: dict[str, Node | None] = {}
        self._names: dict[str, set[str]] = {}

    def note(self, path: str, old: Node | None) -> None:
        """Note a coming change of the tree; only the first change since the moment counts."""
        if path not in self._before:
            self._put(path, old)

    def agree(self, path: str, node: Node | None) -> None:
        """Set ``node`` as the content there, independent of the tree."""
        if self._tree.get(path) is node:
            self._before.pop(path, None)
        else:
            self._put(path, node)

    def differing(self) -> list[str]:
        """Return the paths at which the tree may differ from this."""
        return list(self._before)

    def get(self, path: str) -> Node | None:
        # First the tree, which may change meanwhile, then what it was before that.
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
