"""The manifest of a DAG bundle's version: its files and the hashes of their contents. Does no I/O.

The version is the hash of the manifest, and the manifest holds the hashes of the files. So a reader that knows a
version can check every byte of it.
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

#: Increased when an older reader could misread a manifest.
FORMAT = 1

_HASH = re.compile(r"[0-9a-f]{64}")


def digest(content: bytes) -> str:
    """Return the hash that names a content."""
    return hashlib.sha256(content).hexdigest()


def is_version(text: str) -> bool:
    """Return whether a text has the form of a version."""
    return _HASH.fullmatch(text) is not None


def folder_name(bundle: str) -> str:
    """Return the folder name of a bundle: unique, and never a path, whatever the bundle's name contains."""
    return file_name(quote(bundle, safe="").replace(".", "%2E"))


def bundle_of_folder(folder: str) -> str | None:
    """Return the bundle of a folder name; None if the name was too long, and ``folder_name`` shortened it."""
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
    """The differences between two versions: sorted paths."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True)
class Manifest:
    """The files of a version: relative path with slashes → file. It has no empty folders."""

    files: Mapping[str, File]

    @cached_property
    def content(self) -> bytes:
        """Return the manifest as bytes, which are equal for equal files."""
        files = {path: [file.sha256, file.size, int(file.executable)] for path, file in self.files.items()}
        return json.dumps({"format": FORMAT, "files": files}, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def version(self) -> str:
        return digest(self.content)

    @property
    def size(self) -> int:
        """Return the bytes of all files together."""
        return sum(file.size for file in self.files.values())

    def since(self, older: Manifest) -> Changes:
        """Return the differences from an older version."""
        before, now = older.files, self.files
        return Changes(
            added=tuple(sorted(now.keys() - before.keys())),
            changed=tuple(sorted(path for path in now.keys() & before.keys() if now[path] != before[path])),
            removed=tuple(sorted(before.keys() - now.keys())),
        )

    @classmethod
    def read(cls, content: bytes, version: str) -> Manifest:
        """Read the content of the manifest of ``version``; raise BundleError if it is anything else."""
        if digest(content) != version:
            raise BundleError(
                f"The stored manifest of DAG version {version} has another content. Ship the version again."
            )
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


#: The manifest of an empty version, before the first one.
NOTHING = Manifest({})


def _checked(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or "\0" in path:
        raise ValueError(f"{path!r} is not a path within a folder")
    return path
