"""Reading a local folder as a version of a DAG bundle: what is shipped, what is left out, what is refused.

Reads files, changes none. ``.airflowignore`` says what is no DAG file, not what is not needed: it plays no part here.
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

#: Left out: caches, version control, and what editors leave while a file is being edited.
IGNORED_FOLDERS = frozenset({"__pycache__", ".git", ".hg", ".svn"})
IGNORED_FILES = ("*.pyc", "*.pyo", "*.swp", "*~", ".#*")

#: What a folder of DAGs can have: files, bytes of one file, bytes of all.
MOST_FILES = 20_000
LARGEST_FILE = 64 << 20
LARGEST_FOLDER = 1 << 30

#: Seconds for which a file that has just changed may change again without looking different.
_TOO_FRESH = 2.0

_Look = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    look: _Look
    file: File
    settled: bool
    """Whether it was read long enough after its last change for a further one to show."""


class FolderChangedError(BundleError):
    """A file changed between being listed and being read."""


class Folder:
    """A local folder of DAGs. Remembers what it read, so that looking again costs one look per file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, _Known] = {}

    def manifest(self) -> Manifest:
        """What the folder holds now; BundleError for what cannot be shipped, FolderChangedError if it changes."""
        root = _resolved(self.path)
        now = time.time()
        known: dict[str, _Known] = {}
        size = 0
        for path, found in _walk(root, root, "", ()):
            if len(known) == MOST_FILES:
                raise BundleError(f"{self.path} has more than {MOST_FILES} files. Give a folder that has DAGs only.")
            known[path] = self._look_at(root, path, found, now)
            size += known[path].file.size
            if size > LARGEST_FOLDER:
                raise BundleError(f"{self.path} has more than {LARGEST_FOLDER >> 20} MiB. {_ELSEWHERE}")
        self._known = known
        return Manifest({path: each.file for path, each in sorted(known.items())})

    def read(self, path: str, sha256: str) -> bytes:
        """The content of a file that ``manifest`` told of; FolderChangedError if it is no longer that."""
        try:
            content = (_resolved(self.path) / path).read_bytes()
        except OSError as error:
            raise FolderChangedError(f"{self.path / path} went away while it was read") from error
        if digest(content) != sha256:
            raise FolderChangedError(f"{self.path / path} changed while it was read")
        return content

    def _look_at(self, root: Path, path: str, found: os.stat_result, now: float) -> _Known:
        if found.st_size > LARGEST_FILE:
            raise BundleError(
                f"{root / path} has {found.st_size >> 20} MiB; at most {LARGEST_FILE >> 20} MiB a file are shipped. "
                f"{_ELSEWHERE}"
            )
        look = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        before = self._known.get(path)
        executable = bool(found.st_mode & stat.S_IXUSR)
        if before is not None and before.settled and before.look == look and before.file.executable == executable:
            return before
        try:
            content = (root / path).read_bytes()
        except FileNotFoundError as error:
            raise FolderChangedError(f"{root / path} went away while it was read") from error
        except OSError as error:
            raise BundleError(f"{root / path} cannot be read: {error.strerror}. {_READABLE}") from error
        return _Known(look, File(digest(content), len(content), executable), now - found.st_mtime > _TOO_FRESH)


_ELSEWHERE = "Keep data in a bucket or on a Volume of its own."
_READABLE = "Make it readable for this user, or move it elsewhere."


def _resolved(folder: Path) -> Path:
    root = folder.resolve()
    if not root.is_dir():
        raise BundleError(f"The DAG folder {folder} does not exist; expected a folder on this machine.")
    return root


def _walk(root: Path, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below ``folder`` that is to be shipped, links within ``root`` followed: path, how it looks."""
    if (real := folder.resolve()) in above:
        raise BundleError(f"{folder} is a link to a folder that it is in. Remove it.")
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise FolderChangedError(f"{folder} went away while it was read") from error
    except OSError as error:
        raise BundleError(f"{folder} cannot be listed: {error.strerror}. {_READABLE}") from error
    for entry in entries:
        path = prefix + entry.name
        if _is_ignored(entry.name):
            continue
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
            raise BundleError(
                f"{entry.path} is a link to {Path(entry.path).readlink()}, which is outside of {root}: a task would "
                "not find it. Put the file there instead of the link."
            )
        try:
            found = entry.stat()
        except FileNotFoundError:
            # A link to nothing, as editors make for locks; or it has just gone.
            continue
        if stat.S_ISDIR(found.st_mode):
            if entry.name not in IGNORED_FOLDERS:
                yield from _walk(root, Path(entry.path), f"{path}/", (*above, real))
        elif stat.S_ISREG(found.st_mode):
            yield _named(path), found


def _is_ignored(name: str) -> bool:
    return name in IGNORED_FOLDERS or any(fnmatch(name, pattern) for pattern in IGNORED_FILES)


def _named(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"The name of the file {path!r} is not UTF-8. Rename it.") from error
    return path
