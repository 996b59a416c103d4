"""The records of Volumes in the journal: one for each path.

Owns the format of a node. A change of a tree writes the changed paths and no others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from modalflow.emulator.state.journal import Journal, Table
from modalflow.emulator.volumes.tree import Node, NodeKind

_DIGEST_BYTES = 32


class VolumeRecords:
    """The records of all Volumes' paths."""

    def __init__(self, journal: Journal) -> None:
        self._nodes: Table[Node] = journal.table("volume_nodes", _encoded)

    def load(self) -> dict[str, dict[str, Node]]:
        """Return the nodes of each volume id."""
        found: dict[str, dict[str, Node]] = {}
        for owner, path, record in self._nodes.load():
            found.setdefault(owner, {})[os.fsdecode(path)] = _decoded(*record)
        return found

    def writer(self, owner: str) -> Callable[[str, Node | None], None]:
        """Return the function to be called for each change of a Tree."""

        def write(path: str, node: Node | None) -> None:
            # As bytes: a container's file may have a name in bytes without a meaning in UTF-8.
            if node is None:
                self._nodes.discard(owner, os.fsencode(path))
            else:
                self._nodes.put(owner, os.fsencode(path), node)

        return write

    def discard(self, owner: str) -> None:
        self._nodes.discard_all(owner)


def _encoded(node: Node) -> list[Any]:
    digests = b"".join(bytes.fromhex(block) for block in node.blocks)
    return [node.kind.value, node.mode, node.mtime_ns, node.size, digests, os.fsencode(node.target)]


def _decoded(kind: str, mode: int, mtime_ns: int, size: int, digests: bytes, target: bytes) -> Node:
    blocks = tuple(digests[at : at + _DIGEST_BYTES].hex() for at in range(0, len(digests), _DIGEST_BYTES))
    return Node(NodeKind(kind), mode, mtime_ns, size=size, blocks=blocks, target=os.fsdecode(target))
