"""The content of Volumes in blocks of up to 8 MiB, each stored once for all Volumes.

Owns the blocks in use, their places, and the end of unused ones. A growing file, such as a log, shares all but its last
block with its state a second ago. A block lies in its own file, or in the file with the whole content of a larger file,
never in both for long.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from modalflow.emulator.state.store import FileStore

#: Modal's block size for uploads and downloads of volumes: the SDK's ``BLOCK_SIZE`` (modal/_utils/blob_utils.py).
BLOCK_BYTES = 8 * 1024 * 1024

#: What formats that change a file in place (SQLite, HDF5) have at its beginning changes whenever the file does.
PAGE_BYTES = 4096

#: Lifetime of an unused block: its download, or the upload it is part of, may not be over.
UNUSED_SECONDS = 60.0

#: The block that stands for zeros alone, as the SDK names one: without its trailing zeros nothing is left.
ZEROS = hashlib.sha256(b"").hexdigest()

_PREFIX = ".incoming-"

#: The names of a larger file's blocks, in order, stand in a file of this suffix beside it.
_LIST = ".blocks"


def _undressed(_descriptor: int) -> None:
    """Leave a file as it is made."""


class BlockStore:
    """Blocks by their SHA-256 with a count of their users. Safe to use from several threads.

    A block may be shorter than what it stands for: the rest is zeros (the SDK does not upload trailing zeros).
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = FileStore(root)
        self._wholes = root / "wholes"
        self._clock = clock
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()
        self._unused: dict[str, float] = {}
        self._placed: dict[str, tuple[str, int]] = {}
        self._holding: dict[str, set[str]] = {}
        self._doomed: dict[Path, float] = {}
        self._wholes.mkdir(mode=0o700, exist_ok=True)
        for incoming in self._wholes.glob(f"{_PREFIX}*"):
            incoming.unlink(missing_ok=True)

    def path(self, block: str) -> Path:
        """Return the file of its own that a block has, or would have."""
        return self._files.path(block)

    def locate(self, block: str) -> tuple[Path, int]:
        """Return the file of a block, and its place there. The block may be shorter there; in a larger file, never."""
        with self._lock:
            placed = self._placed.get(block)
        if placed is None:
            return self._files.path(block), 0
        return self._wholes / placed[0], placed[1] * BLOCK_BYTES

    def keep(self, data: bytes, dress: Callable[[int], None] = _undressed) -> str:
        """Keep the bytes and count the caller as a user. A new file of them is given to ``dress``."""
        block = hashlib.sha256(data).hexdigest()
        with self._lock:
            known = self._users[block] > 0 or self._has(block)
            if known:
                self._use(block)
        if not known:
            # Outside the lock: two threads that write the same block at once write the same file.
            self._files.add(block, data, dress)
            with self._lock:
                self._use(block)
        return block

    def keep_file(
        self, descriptor: int, known: Sequence[str] = (), trusted: int = 0, dress: Callable[[int], None] = _undressed
    ) -> tuple[tuple[str, ...], int]:
        """Keep an open file's content, in blocks; return them and the size. Holes are not read.

        ``known`` are blocks that it had earlier: what is still the same is compared, and neither hashed nor written.
        The first ``trusted`` of them, as far as they are kept, are taken to be the same without being read. A file
        made for the whole content is given to ``dress``.
        """
        size = os.fstat(descriptor).st_size
        count = -(-size // BLOCK_BYTES)
        if count > 1 and not known:
            return self._keep_whole(descriptor, size, dress)
        blocks: list[str] = []
        try:
            for index in range(count):
                expected = known[index] if index < len(known) else None
                is_same = expected is not None and (index < trusted or self._is_at(descriptor, index, expected, size))
                # One that nothing used may be gone by now, however it was compared.
                if expected is not None and is_same and not self.use([expected]):
                    blocks.append(expected)
                elif _is_hole(descriptor, index * BLOCK_BYTES):
                    blocks.append(self.keep(b""))
                else:
                    blocks.append(self.keep(_at(descriptor, index, size), dress if count == 1 else _undressed))
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
        """Keep an uploaded block that no one uses yet; ValueError if it is not the expected one."""
        with self._lock:
            block, size = self._files.put_file(path)
            self._doomed.pop(self._files.path(block), None)
            if not self._users[block]:
                self._unused[block] = self._clock() + UNUSED_SECONDS
        if block != expected:
            raise ValueError(f"the uploaded block has SHA-256 {block}; expected {expected}")
        if size > BLOCK_BYTES:
            raise ValueError(f"the uploaded block has {size} bytes; expected at most {BLOCK_BYTES}")

    def use(self, blocks: Iterable[str]) -> list[str]:
        """Count the caller as a user of all these blocks, or of none if some are missing; return those."""
        wanted = list(blocks)
        with self._lock:
            missing = [block for block in wanted if not self._users[block] and not self._has(block)]
            if not missing:
                for block in wanted:
                    self._use(block)
            return missing

    def restore(self, blocks: Iterable[str]) -> None:
        """Count a user that was there before this process: its blocks are taken to be there."""
        with self._lock:
            self._users.update(blocks)

    def restore_wholes(self) -> None:
        """Find the larger files that an earlier process left, once users are restored; those without any go."""
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
                    self._doomed[path] = 0.0

    def clear_orphans(self, older_than: float) -> int:
        """Remove unused blocks kept before this time. Return their number."""
        with self._lock:
            return self._files.clear_orphans(self._users.keys() | self._unused.keys(), older_than)

    def release(self, blocks: Iterable[str]) -> None:
        """Release the caller's blocks. Blocks without any user go after a while."""
        with self._lock:
            now = self._clock()
            for block in blocks:
                self._users[block] -= 1
                if self._users[block] <= 0:
                    del self._users[block]
                    self._unused[block] = now + UNUSED_SECONDS
            for block in [block for block, until in self._unused.items() if until <= now]:
                del self._unused[block]
                if block in self._placed:
                    self._displace(block, now)
                else:
                    self._files.remove(block)
            for path in [path for path, until in self._doomed.items() if until <= now]:
                del self._doomed[path]
                path.unlink(missing_ok=True)
                if path.parent == self._wholes:
                    path.with_suffix(_LIST).unlink(missing_ok=True)

    def write_file(self, blocks: Sequence[str], size: int, target: Path) -> None:
        """Write the blocks out as one file of that size, with holes where they have zeros alone."""
        with target.open("wb") as file:
            self.write_to(blocks, size, file.fileno())

    def write_to(self, blocks: Sequence[str], size: int, descriptor: int) -> None:
        """Write the blocks out into an empty file that is open for writing, as ``write_file``."""
        for index, block in enumerate(blocks):
            if block != ZEROS:
                path, offset = self.locate(block)
                length = min(BLOCK_BYTES, size - index * BLOCK_BYTES)
                _copy_range(path, offset, descriptor, index * BLOCK_BYTES, length)
        os.ftruncate(descriptor, size)

    def assemble(self, blocks: Sequence[str], size: int) -> Path:
        """Return the file with the whole content of those blocks, which the caller uses, made if there is none."""
        name = _whole_name(blocks, size)
        path = self._wholes / name
        with self._lock:
            if name in self._holding and path.exists():
                return path
        incoming = self._incoming()
        try:
            self.write_file(blocks, size, incoming)
            with self._lock:
                self._settle(incoming, name, blocks)
        finally:
            incoming.unlink(missing_ok=True)
        return path

    def content(self, blocks: Sequence[str], size: int) -> Path | None:
        """Return a file with exactly that content, which the caller uses; None if it must be written out."""
        if len(blocks) > 1:
            return self.assemble(blocks, size)
        path, offset = self.locate(blocks[0])
        return path if offset == 0 and os.stat(path).st_size == size else None  # noqa: PTH116 (for each small file)

    def _keep_whole(self, descriptor: int, size: int, dress: Callable[[int], None]) -> tuple[tuple[str, ...], int]:
        """Keep a larger file that nothing is known of: in one piece, read once."""
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
                dress(file.fileno())
            with self._lock:
                if ZEROS in blocks:
                    self._files.put_as(ZEROS, b"")
                for block in blocks:
                    self._use(block)
                self._settle(incoming, _whole_name(blocks, size), blocks)
        finally:
            incoming.unlink(missing_ok=True)
        return tuple(blocks), size

    def _is_at(self, descriptor: int, index: int, block: str, size: int) -> bool:
        """Return whether the file still has this block there. Reads both, up to the first difference."""
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
                # Of a file that was cut off, the beginning of the block that it had is another block.
                rest = os.pread(kept.fileno(), BLOCK_BYTES - length, offset + length) if length < BLOCK_BYTES else b""
                return not rest.strip(b"\0")
        except FileNotFoundError:
            return False

    def _use(self, block: str) -> None:
        self._users[block] += 1
        self._unused.pop(block, None)
        if block not in self._placed:
            self._doomed.pop(self._files.path(block), None)

    def _has(self, block: str) -> bool:
        return block in self._placed or self._files.has(block)

    def _incoming(self) -> Path:
        return self._wholes / f"{_PREFIX}{os.urandom(8).hex()}"

    def _settle(self, incoming: Path, name: str, blocks: Sequence[str]) -> None:
        if name not in self._holding:
            # First: a file is only of use to a later process together with the names of what is in it.
            (self._wholes / name).with_suffix(_LIST).write_text(" ".join(blocks))
            incoming.replace(self._wholes / name)
        # Also if the file is there already: a block of it that had no users for a while is no longer known to be there.
        self._place(name, blocks)

    def _place(self, name: str, blocks: Sequence[str]) -> None:
        """Move the blocks into this larger file. Their previous places go when no one reads them there."""
        now = self._clock()
        self._doomed.pop(self._wholes / name, None)
        self._holding.setdefault(name, set())
        for index, block in enumerate(blocks):
            if block == ZEROS or not self._users[block] or self._placed.get(block, ("",))[0] == name:
                continue
            if block in self._placed:
                self._displace(block, now)
            elif self._files.has(block):
                self._doomed[self._files.path(block)] = now + UNUSED_SECONDS
            self._placed[block] = (name, index)
            self._holding[name].add(block)

    def _displace(self, block: str, now: float) -> None:
        name, _ = self._placed.pop(block)
        self._holding[name].discard(block)
        if not self._holding[name]:
            del self._holding[name]
            self._doomed[self._wholes / name] = now + UNUSED_SECONDS


def _whole_name(blocks: Sequence[str], size: int) -> str:
    return hashlib.sha256(f"{size} {' '.join(blocks)}".encode()).hexdigest()


def _at(descriptor: int, index: int, size: int) -> bytes:
    """Return the block of an open file; what it lacks since its size was looked up is zeros."""
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
    """Yield the parts of a range that are no holes; all of it where the file system does not know."""
    while start < end:
        try:
            first = os.lseek(descriptor, start, os.SEEK_DATA)
            last = os.lseek(descriptor, first, os.SEEK_HOLE)
        except OSError:
            # ENXIO: nothing but a hole up to the end.
            return
        if first >= end:
            return
        yield first, min(last, end)
        start = last


def _copy_range(path: Path, offset: int, target: int, at: int, length: int) -> None:
    """Copy within the kernel, which shares instead where the file system can; the source may be shorter."""
    with path.open("rb", buffering=0) as source:
        while length:
            try:
                copied = os.copy_file_range(source.fileno(), target, length, offset, at)
            except OSError:
                copied = os.pwrite(target, os.pread(source.fileno(), min(length, 1024 * 1024), offset), at)
            if not copied:
                return
            offset, at, length = offset + copied, at + copied, length - copied
