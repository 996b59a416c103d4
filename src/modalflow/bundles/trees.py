"""Versions of DAG bundles as folders: made once, complete before they can be seen, removed when there are too many.

Each is a separate copy, so a task with writes to its DAG files harms no other version. An unchanged content of an older
folder is copied from there. Blocks.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from modalflow.bundles.manifest import File, Manifest, digest, folder_name
from modalflow.bundles.scan import IGNORED_FOLDERS, Folder

#: How many folders, and bytes in them, are kept beside those in use.
MOST_KEPT = 8
MOST_BYTES = 1 << 30

#: How many files are fetched at once.
_AT_ONCE = 16

_Key = tuple[str, str]


def write_tree(folder: Path, manifest: Manifest, content_of: Callable[[str, File], bytes]) -> None:
    """Make a folder of a version, or nothing: a reader sees all of it. An existing folder stays unchanged."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        for parent in sorted({str(Path(path).parent) for path in manifest.files}):
            (unfinished / parent).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-dags") as pool:
            write = _Writer(unfinished, content_of)
            for future in [pool.submit(write, path, file) for path, file in manifest.files.items()]:
                future.result()
        # Another process may have been faster. Its folder is the same.
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


class _Writer:
    def __init__(self, folder: Path, content_of: Callable[[str, File], bytes]) -> None:
        self._folder, self._content_of = folder, content_of

    def __call__(self, path: str, file: File) -> None:
        write_file(self._folder / path, self._content_of(path, file), file)


def write_file(target: Path, content: bytes, file: File) -> None:
    """Write one file of a version."""
    target.write_bytes(content)
    target.chmod(0o755 if file.executable else 0o644)


class Trees:
    """The folders of this process. ``root`` is its own. For several threads at once."""

    def __init__(self, root: Path, *, most: int = MOST_KEPT, most_bytes: int = MOST_BYTES) -> None:
        self._root, self._most, self._most_bytes = root, most, most_bytes
        self._manifests: dict[_Key, Manifest] = {}
        """Of those that are there, the least recently used first."""
        self._users: Counter[_Key] = Counter()
        self._locks: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def use(
        self, bundle: str, version: str, manifest: Callable[[], Manifest], content: Callable[[File], bytes]
    ) -> Iterator[Path]:
        """Yield the folder of a version. It stays until the end of the context.

        ``manifest`` and ``content`` are called for missing parts.
        """
        key = (bundle, version)
        folder = self._folder(bundle, version)
        with self._lock:
            self._users[key] += 1
            making = self._locks.setdefault(key, threading.Lock())
        try:
            with making:
                self._make(key, folder, manifest, content)
            yield folder
        finally:
            with self._lock:
                self._users[key] -= 1
                old = self._set_old_aside()
            for each in old:
                shutil.rmtree(each, ignore_errors=True)

    def _make(
        self, key: _Key, folder: Path, manifest: Callable[[], Manifest], content: Callable[[File], bytes]
    ) -> None:
        with self._lock:
            if (known := self._manifests.pop(key, None)) is not None:
                self._manifests[key] = known
                return
            older = self._copies(key[0])
        wanted = manifest()
        write_tree(folder, wanted, lambda path, file: _unharmed(older, file) or content(file))
        with self._lock:
            self._manifests[key] = wanted

    def _folder(self, bundle: str, version: str) -> Path:
        return self._root / folder_name(bundle) / version

    def _copies(self, bundle: str) -> Mapping[str, Path]:
        """Return the local places of a bundle's contents: hash → file."""
        return {
            file.sha256: self._folder(name, version) / path
            for (name, version), manifest in self._manifests.items()
            if name == bundle
            for path, file in manifest.files.items()
        }

    def _set_old_aside(self) -> list[Path]:
        size = sum(manifest.size for manifest in self._manifests.values())
        aside = []
        for key, manifest in list(self._manifests.items()):
            if len(self._manifests) <= self._most and size <= self._most_bytes:
                break
            if self._users[key] > 0:
                continue
            del self._manifests[key], self._users[key], self._locks[key]
            size -= manifest.size
            aside.append(self._root / f".{uuid.uuid4().hex}")
            self._folder(*key).rename(aside[-1])
        return aside


def _unharmed(copies: Mapping[str, Path], file: File) -> bytes | None:
    if (path := copies.get(file.sha256)) is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if digest(content) == file.sha256 else None


def follow(folder: Folder, manifest: Manifest, read: Callable[[str, str], bytes]) -> None:
    """Make a folder hold exactly the files of a version, and write only the differences.

    File by file: a parallel reader may see old and new files.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    changes = manifest.since(folder.manifest())
    for path in changes.removed:
        (folder.path / path).unlink(missing_ok=True)
    _remove_emptied(folder.path, changes.removed)
    for path in (*changes.added, *changes.changed):
        target = folder.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.parent / f".#{uuid.uuid4().hex}"
        try:
            write_file(unfinished, read(path, manifest.files[path].sha256), manifest.files[path])
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def _remove_emptied(root: Path, removed: Iterable[str]) -> None:
    """Remove the folders with only caches, the deepest first."""
    folders = {parent for path in removed for parent in Path(path).parents if parent != Path()}
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        path = root / folder
        if path.is_dir() and all(each.name in IGNORED_FOLDERS for each in path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)
