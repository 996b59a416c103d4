"""Where the local control plane keeps files: one folder for its state, and files found by the hash of their content.

Owns the layout on disk and nothing of its meaning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modalflow.emulator.journal import Journal
from modalflow.emulator.scratch import Scratch

COPY_CHUNK = 1024 * 1024

_PREFIX = "modalflow-local-"


class StateDir:
    """The folder of one control plane; a temporary one, removed by ``close``, where none was given."""

    def __init__(self, root: Path | None = None) -> None:
        self._scratch: Scratch | None = None
        if root is None:
            self._scratch = Scratch(_PREFIX)
            self.root = self._scratch.path
        else:
            self.root = root.expanduser().resolve()
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(None if root is None else self.root)
        """Records of what services hold in memory; of a temporary folder, none."""
        self.files = FileStore(self.folder("files"))
        """What clients uploaded with MountPutFile: source files of apps and files for version 1 volumes."""

    def folder(self, name: str) -> Path:
        """Return the sub-folder of that name, made private to this user on first use."""
        folder = self.root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def close(self) -> None:
        """Let go of the folder; a temporary one is removed."""
        self.journal.close()
        if self._scratch is not None:
            self._scratch.close()


class FileStore:
    """Immutable files, named by the SHA-256 (hex) of what is in them. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, sha256: str) -> Path:
        """Return where that content is, or would be. Read it, link it, never write to it."""
        if len(sha256) != 64 or not all(c in "0123456789abcdef" for c in sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")
        return self._root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def put(self, data: bytes) -> str:
        """Keep the bytes, return their SHA-256."""
        return self.put_as(hashlib.sha256(data).hexdigest(), data)

    def put_as(self, sha256: str, data: bytes) -> str:
        """Keep the bytes, whose SHA-256 the caller has computed, and return that."""
        if self.has(sha256):
            return sha256
        with self._incoming() as (file, name):
            file.write(data)
            file.flush()
            return self._settle(name, sha256)

    def put_stream(self, source: BinaryIO) -> tuple[str, int]:
        """Copy all that is left to read, return its SHA-256 and size."""
        digest, size = hashlib.sha256(), 0
        with self._incoming() as (file, name):
            while chunk := source.read(COPY_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            return self._settle(name, digest.hexdigest()), size

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of a file, return its SHA-256 and the size of what was copied."""
        with path.open("rb") as source:
            return self.put_stream(source)

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[tuple[BinaryIO, Path]]:
        descriptor, name = tempfile.mkstemp(dir=self._root, prefix=".incoming-")
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _settle(self, incoming: Path, sha256: str) -> str:
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        incoming.replace(target)
        return sha256
