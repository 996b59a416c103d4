"""A local folder as a version of a DAG bundle: the files that are shipped, left out or refused.

Reads files and changes none. ``.airflowignore`` plays no part: it lists files that are not DAGs, and DAGs may still
need them.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from modalflow.bundles.manifest import File, Manifest, digest
from modalflow.errors import BundleError

#: Files and folders that are left out: caches, version control, and temporary files of editors.
IGNORED_FOLDERS = frozenset({"__pycache__", ".git", ".hg", ".svn"})
IGNORED_FILES = ("*.pyc", "*.pyo", "*.swp", "*~", ".#*")

#: Limits for a folder of DAGs: files, bytes of one file, bytes of all files.
MOST_FILES = 20_000
LARGEST_FILE = 64 << 20
LARGEST_FOLDER = 1 << 30

#: Seconds after a change in which another change may leave the file's size and times equal.
_TOO_FRESH = 2.0

_Stat = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    stat: _Stat
    file: File
    settled: bool
    """Whether it was read so long after its last change that another change would be visible."""


class FolderChangedError(BundleError):
    """A file changed after it was listed and before it was read."""


class Folder:
    """A local folder of DAGs. Caches what it read: another scan reads no file that has not changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, _Known] = {}

    def manifest(self) -> Manifest:
        """Return the present content; raise BundleError if it cannot be shipped, FolderChangedError if it changes."""
        root = _resolved(self.path)
        now = time.time()
        known: dict[str, _Known] = {}
        size = 0
        for path, found in _walk(root, root, "", ()):
            if len(known) == MOST_FILES:
                raise BundleError(f"{self.path} has more than {MOST_FILES} files. Give a folder that has DAGs only.")
            known[path] = self._inspect(root, path, found, now)
            size += known[path].file.size
            if size > LARGEST_FOLDER:
                raise BundleError(f"{self.path} has more than {LARGEST_FOLDER >> 20} MiB. {_ELSEWHERE}")
        self._known = known
        return Manifest({path: each.file for path, each in sorted(known.items())})

    def read(self, path: str, sha256: str) -> bytes:
        """Return the content of a file in ``manifest``; raise FolderChangedError if it has changed."""
        try:
            content = (_resolved(self.path) / path).read_bytes()
        except OSError as error:
            raise FolderChangedError(f"{self.path / path} went away while it was read") from error
        if digest(content) != sha256:
            raise FolderChangedError(f"{self.path / path} changed while it was read")
        return content

    def _inspect(self, root: Path, path: str, found: os.stat_result, now: float) -> _Known:
        if found.st_size > LARGEST_FILE:
            raise BundleError(
                f"{root / path} has {found.st_size >> 20} MiB; the limit for a file is {LARGEST_FILE >> 20} MiB. "
                f"{_ELSEWHERE}"
            )
        stat_now = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        before = self._known.get(path)
        executable = bool(found.st_mode & stat.S_IXUSR)
        if before is not None and before.settled and before.stat == stat_now and before.file.executable == executable:
            return before
        try:
            content = (root / path).read_bytes()
        except FileNotFoundError as error:
            raise FolderChangedError(f"{root / path} went away while it was read") from error
        except OSError as error:
            raise BundleError(f"{root / path} cannot be read: {error.strerror}. {_READABLE}") from error
        return _Known(stat_now, File(digest(content), len(content), executable), now - found.st_mtime > _TOO_FRESH)


_ELSEWHERE = "Keep data in a bucket or on a Volume of its own."
_READABLE = "Make it readable for this user, or move it elsewhere."


def _resolved(folder: Path) -> Path:
    root = folder.resolve()
    if not root.is_dir():
        raise BundleError(f"The DAG folder {folder} does not exist; expected a folder on this machine.")
    return root


def _walk(root: Path, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path, status) of every file below ``folder`` that is shipped. Links within ``root`` are followed."""
    if (real := folder.resolve()) in above:
        raise BundleError(f"{folder} is a link to one of its own parent folders. Remove it.")
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise FolderChangedError(f"{folder} went away while it was read") from error
    except OSError as error:
        raise BundleError(f"{folder} cannot be listed: {error.strerror}. {_READABLE}") from error
    for entry in entries:
        path = prefix + entry.name
        if is_ignored(entry.name):
            continue
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
            raise BundleError(
                f"{entry.path} is a link to {Path(entry.path).readlink()}, outside of {root}: a task would "
                "not find it. Replace the link by the file."
            )
        try:
            found = entry.stat()
        except FileNotFoundError:
            # A broken link, which editors use as a lock, or a file that was removed just now.
            continue
        if stat.S_ISDIR(found.st_mode):
            if entry.name not in IGNORED_FOLDERS:
                yield from _walk(root, Path(entry.path), f"{path}/", (*above, real))
        elif stat.S_ISREG(found.st_mode):
            yield _named(path), found


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is left out."""
    return name in IGNORED_FOLDERS or any(fnmatch(name, pattern) for pattern in IGNORED_FILES)


def _named(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"The name of the file {path!r} is not UTF-8. Rename it.") from error
    return path
