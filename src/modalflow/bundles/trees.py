"""Versions of DAG bundles as folders: made once, visible only when complete, removed when there are too many.

Each folder is a copy, so that a task that changes its DAG files harms no other version. Contents that an older folder
has unchanged are copied from there. Blocks.
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

#: The folders, and bytes in them, that are kept in addition to those in use.
MOST_KEPT = 8
MOST_BYTES = 1 << 30

#: The files that are fetched at the same time.
_AT_ONCE = 16

_Key = tuple[str, str]


def write_tree(folder: Path, manifest: Manifest, content_of: Callable[[str, File], bytes]) -> None:
    """Write the folder of a version so that it appears as a whole. An existing folder is left unchanged."""
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
        # Another process may have been faster: its folder is the same.
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
    """The folders of this process, below ``root``, which is its own. Safe to use from several threads."""

    def __init__(self, root: Path, *, most: int = MOST_KEPT, most_bytes: int = MOST_BYTES) -> None:
        self._root, self._most, self._most_bytes = root, most, most_bytes
        self._manifests: dict[_Key, Manifest] = {}
        """The manifests of existing folders, the least recently used first."""
        self._users: Counter[_Key] = Counter()
        self._locks: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def use(
        self, bundle: str, version: str, manifest: Callable[[], Manifest], content: Callable[[File], bytes]
    ) -> Iterator[Path]:
        """Yield the folder of a version, which exists at least as long as the context.

        ``manifest`` and ``content`` are called if it does not exist yet.
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
                old = self._move_old_aside()
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
        write_tree(folder, wanted, lambda path, file: _unchanged_copy(older, file) or content(file))
        with self._lock:
            self._manifests[key] = wanted

    def _folder(self, bundle: str, version: str) -> Path:
        return self._root / folder_name(bundle) / version

    def _copies(self, bundle: str) -> Mapping[str, Path]:
        """Return the contents of a bundle that folders have: hash → file."""
        return {
            file.sha256: self._folder(name, version) / path
            for (name, version), manifest in self._manifests.items()
            if name == bundle
            for path, file in manifest.files.items()
        }

    def _move_old_aside(self) -> list[Path]:
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


def _unchanged_copy(copies: Mapping[str, Path], file: File) -> bytes | None:
    if (path := copies.get(file.sha256)) is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if digest(content) == file.sha256 else None


def update_tree(folder: Folder, manifest: Manifest, read: Callable[[str, str], bytes]) -> None:
    """Make a folder contain exactly the files of a version, and change only what differs.

    It changes file by file: a reader may see some old and some new files meanwhile.
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
    """Remove the folders that only contain caches now, the deepest first."""
    folders = {parent for path in removed for parent in Path(path).parents if parent != Path()}
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        path = root / folder
        if path.is_dir() and all(each.name in IGNORED_FOLDERS for each in path.iterdir()):
            shutil.rmtree(path, ignore_errors=True)
