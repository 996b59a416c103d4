"""The content of volumes: blocks of up to 8 MiB, each kept once however many files of however many volumes hold it.

Owns which blocks are in use and when an unused one goes. A file that grows, as a log does, shares all but its last
block with what it was a second ago.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from modalflow.emulator.state.store import FileStore

#: Modal's block size for uploads and downloads of volumes: the SDK's ``BLOCK_SIZE`` (modal/_utils/blob_utils.py).
BLOCK_BYTES = 8 * 1024 * 1024

#: An unused block stays so long: a download of it may be under way, or the upload that it is part of may not be over.
UNUSED_SECONDS = 60.0


class BlockStore:
    """Blocks by their SHA-256 with a count of their users. Safe to use from several threads.

    A block may be shorter than what it stands for: the rest is zeros (the SDK does not upload trailing zeros).
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = FileStore(root)
        self._clock = clock
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()
        self._unused: dict[str, float] = {}

    def path(self, block: str) -> Path:
        return self._files.path(block)

    def keep(self, data: bytes) -> str:
        """Keep the bytes and count the caller as a user."""
        block = hashlib.sha256(data).hexdigest()
        with self._lock:
            self._files.put_as(block, data)
            self._use(block)
        return block

    def keep_stream(self, source: BinaryIO) -> tuple[tuple[str, ...], int]:
        """Keep all that is left to read, in blocks; return them and the size."""
        blocks: list[str] = []
        size = 0
        try:
            while data := _read_block(source):
                blocks.append(self.keep(data))
                size += len(data)
        except OSError:
            self.release(blocks)
            raise
        return tuple(blocks), size

    def receive(self, path: Path, expected: str) -> None:
        """Keep an uploaded block that nobody uses yet; ValueError if it is not the expected one."""
        with self._lock:
            block, size = self._files.put_file(path)
            if not self._users[block]:
                self._unused[block] = self._clock() + UNUSED_SECONDS
        if block != expected:
            raise ValueError(f"the uploaded block has SHA-256 {block}; expected {expected}")
        if size > BLOCK_BYTES:
            raise ValueError(f"the uploaded block has {size} bytes; expected at most {BLOCK_BYTES}")

    def use(self, blocks: Iterable[str]) -> list[str]:
        """Count the caller as a user of each block that is there; return those that are missing."""
        wanted = list(blocks)
        with self._lock:
            missing = [block for block in wanted if not self._users[block] and not self._files.has(block)]
            if not missing:
                for block in wanted:
                    self._use(block)
            return missing

    def restore(self, blocks: Iterable[str]) -> None:
        """Count a user that was there before this process: its blocks are taken to be there."""
        with self._lock:
            self._users.update(blocks)

    def clear_orphans(self, older_than: float) -> int:
        """Remove blocks that nobody uses and that were kept before that time; return how many went."""
        with self._lock:
            return self._files.clear_orphans(self._users.keys() | self._unused.keys(), older_than)

    def release(self, blocks: Iterable[str]) -> None:
        """The caller no longer uses these; blocks without any user go after a while."""
        with self._lock:
            now = self._clock()
            for block in blocks:
                self._users[block] -= 1
                if self._users[block] <= 0:
                    del self._users[block]
                    self._unused[block] = now + UNUSED_SECONDS
            for block in [block for block, until in self._unused.items() if until <= now]:
                del self._unused[block]
                self._files.remove(block)

    def write_file(self, blocks: Iterable[str], size: int, target: Path) -> None:
        """Write the blocks out as one file of that size."""
        with target.open("wb") as file:
            for index, block in enumerate(blocks):
                file.seek(index * BLOCK_BYTES)
                file.write(self.path(block).read_bytes())
            file.truncate(size)

    def _use(self, block: str) -> None:
        self._users[block] += 1
        self._unused.pop(block, None)


def _read_block(source: BinaryIO) -> bytes:
    parts: list[bytes] = []
    left = BLOCK_BYTES
    while left and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
