"""The content of Volumes in blocks of up to 8 MiB, each stored once for all Volumes.

Owns the set of blocks in use, the place of each block, and the removal of unused ones. A growing file, such as a log,
shares all blocks except the last with its previous version. A block has a file of its own, or is part of a larger
file's whole content. It is never in both for long.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from modalflow.emulator.state.file_store import FileStore

#: Modal's block size for uploads and downloads of Volumes: the SDK's ``BLOCK_SIZE`` (modal/_utils/blob_utils.py).
BLOCK_BYTES = 8 * 1024 * 1024

#: Formats with changes in place (SQLite, HDF5) update this part at their beginning whenever the file changes.
PAGE_BYTES = 4096

#: An unused block stays this long: a download of it may be in progress, or the rest of its upload may be pending.
UNUSED_SECONDS = 60.0

#: The block of zeros alone, as the SDK names one: without its trailing zeros nothing is left.
ZEROS = hashlib.sha256(b"").hexdigest()

_PREFIX = ".incoming-"

#: The names of a larger file's blocks, in order, are in a file with this suffix beside it.
_LIST = ".blocks"


def _unprepared(_descriptor: int) -> None:
    """Leave a new file unchanged."""


class BlockStore:
    """Blocks by their SHA-256 with a count of their users. Safe to use from several threads.

    A block may be shorter than its content: the rest is zeros, because the SDK does not upload trailing zeros.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = FileStore(root)
        self._wholes = root / "wholes"
        self._clock = clock
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()
        self._unused: dict[str, float] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._holding: dict[str, set[str]] = {}
        self._to_remove: dict[Path, float] = {}
        self._wholes.mkdir(mode=0o700, exist_ok=True)
        for incoming in self._wholes.glob(f"{_PREFIX}*"):
            incoming.unlink(missing_ok=True)

    def path(self, block: str) -> Path:
        """Return the path of the block's own file, whether it exists or not."""
        return self._files.path(block)

    def locate(self, block: str) -> tuple[Path, int]:
        """Return the file with the block, and the offset in it.

        The block may be shorter in a file of its own, but not in a larger file.
        """
        with self._lock:
            place = self._places.get(block)
        if place is None:
            return self._files.path(block), 0
        return self._wholes / place[0], place[1] * BLOCK_BYTES

    def keep(self, data: bytes, prepare: Callable[[int], None] = _unprepared) -> str:
        """Keep the bytes and count the caller as a user. A new file of them is passed to ``prepare``."""
        block = hashlib.sha256(data).hexdigest()
        with self._lock:
            known = self._users[block] > 0 or self._has(block)
            if known:
                self._use(block)
        if not known:
            # Outside the lock: two threads can safely write the same block at the same time, because they write the
            # same file.
            self._files.add(block, data, prepare)
            with self._lock:
                self._use(block)
        return block

    def keep_file(
        self, descriptor: int, known: Sequence[str] = (), trusted: int = 0, prepare: Callable[[int], None] = _unprepared
    ) -> tuple[tuple[str, ...], int]:
        """Keep an open file's content in blocks; return them and the size. Holes are not read.

        ``known`` are its earlier blocks. Unchanged ones are compared, and neither hashed nor written. The first
        ``trusted`` of them, if still kept, are assumed unchanged without being read. A new file for the whole content
        is passed to ``prepare``.
        """
        size = os.fstat(descriptor).st_size
        count = -(-size // BLOCK_BYTES)
        if count > 1 and not known:
            return self._keep_whole(descriptor, size, prepare)
        blocks: list[str] = []
        try:
            for index in range(count):
                expected = known[index] if index < len(known) else None
                is_same = expected is not None and (index < trusted or self._is_at(descriptor, index, expected, size))
                # An unused block may have been removed after the comparison.
                if expected is not None and is_same and not self.use([expected]):
                    blocks.append(expected)
                elif _is_hole(descriptor, index * BLOCK_BYTES):
                    blocks.append(self.keep(b""))
                else:
                    blocks.append(self.keep(_at(descriptor, index, size), prepare if count == 1 else _unprepared))
        except BaseException:
            self.release(blocks)
            raise
        return tuple(blocks), size

    def begins_with(self, descriptor: int, block: str) -> bool:
        """Return whether an open file has the first page of a block."""
        path, offset = self.locate(block)
        length = min(PAGE_BYTES, BLOCK_BYTES)
        try:
            with path.open("rb", buffering=0) as kept:
                return os.pread(descriptor, length, 0) == os.pread(kept.fileno(), length, offset).ljust(length, b"\0")
        except FileNotFoundError:
            return False

    def receive(self, path: Path, expected: str) -> None:
        """Keep an uploaded block without a user; ValueError if it is not the expected one."""
        with self._lock:
            block, size = self._files.put_file(path)
            self._to_remove.pop(self._files.path(block), None)
            if not self._users[block]:
                self._unused[block] = self._clock() + UNUSED_SECONDS
        if block != expected:
            raise ValueError(f"the uploaded block has SHA-256 {block}; expected {expected}")
        if size > BLOCK_BYTES:
            raise ValueError(f"the uploaded block has {size} bytes; expected at most {BLOCK_BYTES}")

    def use(self, blocks: Iterable[str]) -> list[str]:
        """Count the caller as a user of all these blocks, or of none if some are missing; return the missing ones."""
        wanted = list(blocks)
        with self._lock:
            missing = [block for block in wanted if not self._users[block] and not self._has(block)]
            if not missing:
                for block in wanted:
                    self._use(block)
            return missing

    def restore(self, blocks: Iterable[str]) -> None:
        """Count a user from before this process, without checking whether the blocks exist."""
        with self._lock:
            self._users.update(blocks)

    def restore_large_files(self) -> None:
        """Find the larger files of an earlier process, after users are restored, and remove those without any user."""
        for path in self._wholes.iterdir():
            if path.suffix == _LIST:
                if not path.with_suffix("").exists():
                    path.unlink()
                continue
            try:
                blocks = path.with_suffix(_LIST).read_text().split()
            except FileNotFoundError:
                blocks = []
            with self._lock:
                if any(self._users[block] for block in blocks if block != ZEROS):
                    self._place(path.name, blocks)
                else:
                    self._to_remove[path] = 0.0

    def clear_orphans(self, older_than: float) -> int:
        """Remove unused blocks kept before this time; return how many were removed."""
        with self._lock:
            return self._files.clear_orphans(self._users.keys() | self._unused.keys(), older_than)

    def release(self, blocks: Iterable[str]) -> None:
        """Count one user less of these blocks; blocks without any user are removed after a while."""
        with self._lock:
            now = self._clock()
            for block in blocks:
                self._users[block] -= 1
                if self._users[block] <= 0:
                    del self._users[block]
                    self._unused[block] = now + UNUSED_SECONDS
            for block in [block for block, until in self._unused.items() if until <= now]:
                del self._unused[block]
                if block in self._places:
                    self._displace(block, now)
                else:
                    self._files.remove(block)
            for path in [path for path, until in self._to_remove.items() if until <= now]:
                del self._to_remove[path]
                path.unlink(missing_ok=True)
                if path.parent == self._wholes:
                    path.with_suffix(_LIST).unlink(missing_ok=True)

    def write_file(self, blocks: Sequence[str], size: int, target: Path) -> None:
        """Write the blocks out as one file of this size, with holes for zeros."""
        with target.open("wb") as file:
            self.write_to(blocks, size, file.fileno())

    def write_to(self, blocks: Sequence[str], size: int, descriptor: int) -> None:
        """Write the blocks out into an empty file open for writing, as ``write_file`` does."""
        for index, block in enumerate(blocks):
            if block != ZEROS:
                path, offset = self.locate(block)
                length = min(BLOCK_BYTES, size - index * BLOCK_BYTES)
                _copy_range(path, offset, descriptor, index * BLOCK_BYTES, length)
        os.ftruncate(descriptor, size)

    def assemble(self, blocks: Sequence[str], size: int) -> Path:
        """Return a file with the whole content of the caller's blocks. It is created if it does not exist."""
        name = _whole_name(blocks, size)
        path = self._wholes / name
        with self._lock:
            if name in self._holding and path.exists():
                return path
        incoming = self._incoming()
        try:
            self.write_file(blocks, size, incoming)
            with self._lock:
                self._add_whole(incoming, name, blocks)
        finally:
            incoming.unlink(missing_ok=True)
        return path

    def content(self, blocks: Sequence[str], size: int) -> Path | None:
        """Return a file with exactly the content of the caller's blocks; None if it must be written out."""
        if len(blocks) > 1:
            return self.assemble(blocks, size)
        path, offset = self.locate(blocks[0])
        return path if offset == 0 and os.stat(path).st_size == size else None  # noqa: PTH116 (for each small file)

    def _keep_whole(self, descriptor: int, size: int, prepare: Callable[[int], None]) -> tuple[tuple[str, ...], int]:
        """Keep a larger file without known blocks: in one piece, read once."""
        incoming = self._incoming()
        blocks: list[str] = []
        try:
            with incoming.open("wb") as file:
                for index in range(-(-size // BLOCK_BYTES)):
                    if _is_hole(descriptor, index * BLOCK_BYTES):
                        blocks.append(ZEROS)
                        continue
                    data = _at(descriptor, index, size)
                    blocks.append(hashlib.sha256(data).hexdigest())
                    for start, end in _data(descriptor, index * BLOCK_BYTES, index * BLOCK_BYTES + len(data)):
                        os.pwrite(file.fileno(), data[start - index * BLOCK_BYTES : end - index * BLOCK_BYTES], start)
                file.truncate(size)
                prepare(file.fileno())
            with self._lock:
                if ZEROS in blocks:
                    self._files.put_as(ZEROS, b"")
                for block in blocks:
                    self._use(block)
                self._add_whole(incoming, _whole_name(blocks, size), blocks)
        finally:
            incoming.unlink(missing_ok=True)
        return tuple(blocks), size

    def _is_at(self, descriptor: int, index: int, block: str, size: int) -> bool:
        """Return whether the file still has this block at the index. Reads both up to the first difference."""
        if block == ZEROS and _is_hole(descriptor, index * BLOCK_BYTES):
            return True
        length = min(BLOCK_BYTES, size - index * BLOCK_BYTES)
        path, offset = self.locate(block)
        try:
            with path.open("rb", buffering=0) as kept:
                for at in range(0, length, 1024 * 1024):
                    part = os.pread(descriptor, min(1024 * 1024, length - at), index * BLOCK_BYTES + at)
                    if part != os.pread(kept.fileno(), len(part), offset + at).ljust(len(part), b"\0"):
                        return False
                # If the file was truncated, the beginning of its earlier block is another block.
                rest = os.pread(kept.fileno(), BLOCK_BYTES - length, offset + length) if length < BLOCK_BYTES else b""
                return not rest.strip(b"\0")
        except FileNotFoundError:
            return False

    def _use(self, block: str) -> None:
        self._users[block] += 1
        self._unused.pop(block, None)
        if block not in self._places:
            self._to_remove.pop(self._files.path(block), None)

    def _has(self, block: str) -> bool:
        return block in self._places or self._files.has(block)

    def _incoming(self) -> Path:
        return self._wholes / f"{_PREFIX}{os.urandom(8).hex()}"

    def _add_whole(self, incoming: Path, name: str, blocks: Sequence[str]) -> None:
        if name not in self._holding:
            # First: the file is useful to a later process only together with the names of its blocks.
            (self._wholes / name).with_suffix(_LIST).write_text(" ".join(blocks))
            incoming.replace(self._wholes / name)
        # Also if the file exists already: a block in it may have been forgotten after some time without users.
        self._place(name, blocks)

    def _place(self, name: str, blocks: Sequence[str]) -> None:
        """Record the larger file as the place of these blocks.

        The blocks' earlier files are removed after a while, when no reader has them any more.
        """
        now = self._clock()
        self._to_remove.pop(self._wholes / name, None)
        self._holding.setdefault(name, set())
        for index, block in enumerate(blocks):
            if block == ZEROS or not self._users[block] or self._places.get(block, ("",))[0] == name:
                continue
            if block in self._places:
                self._displace(block, now)
            elif self._files.has(block):
                self._to_remove[self._files.path(block)] = now + UNUSED_SECONDS
            self._places[block] = (name, index)
            self._holding[name].add(block)

    def _displace(self, block: str, now: float) -> None:
        name, _ = self._places.pop(block)
        self._holding[name].discard(block)
        if not self._holding[name]:
            del self._holding[name]
            self._to_remove[self._wholes / name] = now + UNUSED_SECONDS


def _whole_name(blocks: Sequence[str], size: int) -> str:
    return hashlib.sha256(f"{size} {' '.join(blocks)}".encode()).hexdigest()


def _at(descriptor: int, index: int, size: int) -> bytes:
    """Return a block of an open file, padded with zeros if the file became shorter."""
    length = min(BLOCK_BYTES, size - index * BLOCK_BYTES)
    parts: list[bytes] = []
    at = index * BLOCK_BYTES
    while length and (part := os.pread(descriptor, length, at)):
        parts.append(part)
        at, length = at + len(part), length - len(part)
    return b"".join(parts) + bytes(length)


def _is_hole(descriptor: int, offset: int) -> bool:
    """Return whether a block of the file is a hole from beginning to end."""
    return next(_data(descriptor, offset, offset + BLOCK_BYTES), None) is None


def _data(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range with data; all of it if the file system cannot report holes."""
    while start < end:
        try:
            first = os.lseek(descriptor, start, os.SEEK_DATA)
            last = os.lseek(descriptor, first, os.SEEK_HOLE)
        except OSError:
            # ENXIO: only a hole up to the end.
            return
        if first >= end:
            return
        yield first, min(last, end)
        start = last


def _copy_range(path: Path, offset: int, target: int, at: int, length: int) -> None:
    """Copy within the kernel, with shared storage if the file system supports it; the source may be shorter."""
    with path.open("rb", buffering=0) as source:
        while length:
            try:
                copied = os.copy_file_range(source.fileno(), target, length, offset, at)
            except OSError:
                copied = os.pwrite(target, os.pread(source.fileno(), min(length, 1024 * 1024), offset), at)
            if not copied:
                return
            offset, at, length = offset + copied, at + copied, length - copied
