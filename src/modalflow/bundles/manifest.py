"""A version of a DAG bundle: its files by content. No I/O.

The version is the hash of the manifest, and the manifest holds the hashes of the files. So a reader of the version can
check every byte of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from modalflow.errors import BundleError
from modalflow.names import file_name
from modalflow.support.described import describe

#: Raised when an older reader could misread a manifest.
FORMAT = 1

_HASH = re.compile(r"[0-9a-f]{64}")


def digest(content: bytes) -> str:
    """Return the name of a content."""
    return hashlib.sha256(content).hexdigest()


def is_version(text: str) -> bool:
    """Return whether a text can be a version."""
    return _HASH.fullmatch(text) is not None


def folder_name(bundle: str) -> str:
    """Return a bundle's name as a folder name. For any name, it leads nowhere else, and no other bundle has it."""
    return file_name(quote(bundle, safe="").replace(".", "%2E"))


def bundle_of_folder(folder: str) -> str | None:
    """Return the bundle of a folder name; None if the name is too short to contain it."""
    bundle = unquote(folder)
    return bundle if folder_name(bundle) == folder else None


@dataclass(frozen=True, slots=True)
class File:
    """A file of a version."""

    sha256: str
    size: int
    """Bytes."""
    executable: bool = False


@dataclass(frozen=True)
class Changes:
    """The difference between two versions: paths, in order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True)
class Manifest:
    """The files of a version: path, relative and with slashes → file. There are no empty folders in it."""

    files: Mapping[str, File]

    @cached_property
    def content(self) -> bytes:
        """The manifest as bytes: equal files make equal bytes."""
        files = {path: [file.sha256, file.size, int(file.executable)] for path, file in self.files.items()}
        return json.dumps({"format": FORMAT, "files": files}, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def version(self) -> str:
        return digest(self.content)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())

    def since(self, older: Manifest) -> Changes:
        """Return the differences to another version."""
        before, now = older.files, self.files
        return Changes(
            added=tuple(sorted(now.keys() - before.keys())),
            changed=tuple(sorted(path for path in now.keys() & before.keys() if now[path] != before[path])),
            removed=tuple(sorted(before.keys() - now.keys())),
        )

    @classmethod
    def read(cls, content: bytes, version: str) -> Manifest:
        """Read ``content`` as the manifest of ``version``. Raises BundleError for any other content."""
        if digest(content) != version:
            raise BundleError(f"The stored DAG version {version} has other content. Ship it again.")
        try:
            wire: Any = json.loads(content)
            known = wire["format"]
            files = {
                _checked(path): File(str(sha256), int(size), bool(executable))
                for path, (sha256, size, executable) in wire["files"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"The manifest of DAG version {version} is malformed: {describe(error)}") from error
        if known != FORMAT:
            raise BundleError(
                f"DAG version {version} was shipped in format {known}, and this modalflow reads {FORMAT}. Use the same "
                "modalflow on the Airflow host and in the worker: `modalflow deploy`."
            )
        return cls(files)


#: The manifest of no folder.
NOTHING = Manifest({})


def _checked(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or "\0" in path:
        raise ValueError(f"{path!r} is not a path within a folder")
    return path
