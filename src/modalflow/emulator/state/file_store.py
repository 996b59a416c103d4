"""Files stored by the hash of their content.

Owns the layout of one such folder, and the removal of unused files.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import BinaryIO

COPY_CHUNK = 1024 * 1024

_SHA256 = re.compile("[0-9a-f]{64}")

#: The beginning of a temporary file's name, in a folder of files named by their content.
INCOMING = ".incoming-"


class FileStore:
    """Immutable files, named by the SHA-256 (hex) of their content. Safe to use from several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: set[str] = set()
        self._prefix = f"{root}/{INCOMING}{secrets.token_hex(4)}-"
        # Counting is one step: no two threads get the same number.
        self._numbers = itertools.count()

    def path(self, sha256: str) -> Path:
        """Return the path for this content, whether it exists or not. Read it, link it, never write to it."""
        if not _is_sha256(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256 in lower-case hex")
        return self._root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return _is_sha256(sha256) and self.path(sha256).exists()

    def put(self, data: bytes) -> str:
        """Keep the bytes, return their SHA-256."""
        return self.put_as(hashlib.sha256(data).hexdigest(), data)

    def put_as(self, sha256: str, data: bytes) -> str:
        """Keep the bytes under the SHA-256 computed by the caller, and return it."""
        if not self.has(sha256):
            self.add(sha256, data)
        return sha256

    def add(self, sha256: str, data: bytes, prepare: Callable[[int], None] | None = None) -> None:
        """Write a new file. ``prepare`` is called with it before it becomes visible.

        In few system calls: a Volume may have a hundred thousand small files.
        """
        target, incoming = str(self.path(sha256)), f"{self._prefix}{next(self._numbers)}"
        folder = os.path.dirname(target)  # noqa: PTH120
        if folder not in self._folders:
            Path(folder).mkdir(exist_ok=True)
            self._folders.add(folder)
        try:
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                if prepare is not None:
                    prepare(descriptor)
            finally:
                os.close(descriptor)
            os.replace(incoming, target)  # noqa: PTH105
        except BaseException:
            Path(incoming).unlink(missing_ok=True)
            raise

    def put_stream(self, source: BinaryIO) -> tuple[str, int]:
        """Copy the rest of a stream; return its SHA-256 and size."""
        digest, size = hashlib.sha256(), 0
        with self._incoming() as (file, name):
            while chunk := source.read(COPY_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            return self._add_whole(name, digest.hexdigest()), size

    def put_file(self, path: Path) -> tuple[str, int]:
        """Keep a copy of a file; return the SHA-256 and the size of the copy."""
        with path.open("rb") as source:
            return self.put_stream(source)

    def move_in(self, path: Path, sha256: str) -> bool:
        """Move a file of the same file system into the store; return False if its content is different."""
        try:
            with path.open("rb") as source:
                found = hashlib.file_digest(source, "sha256").hexdigest()
            if found == sha256:
                self._add_whole(path, sha256)
            return found == sha256
        except FileNotFoundError:
            # A repetition of the same call may have moved it meanwhile.
            if not self.has(sha256):
                raise
            return True

    def clear_orphans(self, used: Collection[str], older_than: float) -> int:
        """Remove unused files older than this time; return how many were removed.

        Unfinished files of a killed writer are removed as well.
        """
        gone = 0
        for incoming in self._root.glob(f"{INCOMING}*"):
            incoming.unlink(missing_ok=True)
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            if len(path.name) != 64 or path.name in used:
                continue
            if path.stat().st_mtime < older_than:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[tuple[BinaryIO, Path]]:
        descriptor, name = tempfile.mkstemp(dir=self._root, prefix=INCOMING)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)

    def _add_whole(self, incoming: Path, sha256: str) -> str:
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True)
        incoming.replace(target)
        return sha256


def _is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None
