"""The versions of DAG bundles on a Volume: contents by hash, a manifest for each version, a pointer for each bundle.

    v1/blobs/ab/abcd…                         a content, shared by all versions that have it
    v1/bundles/<bundle>/versions/<version>    a manifest
    v1/bundles/<bundle>/current               the version for a reader that requests none

They are written in this order, contents first, so that every visible version is complete. No file is ever changed, so
readers need no lock. If two processes ship at the same time, they write the same bytes, and the later pointer wins.
Blocks; does not decide which versions are old.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import modal

from modalflow.bundles.files import Files, ListedFile, VolumeFiles
from modalflow.bundles.manifest import NOTHING, File, Manifest, bundle_of_folder, digest, folder_name, is_version
from modalflow.errors import BundleError
from modalflow.names import Names
from modalflow.support.described import describe

_BLOBS, _BUNDLES = "v1/blobs", "v1/bundles"

#: Seconds after which a content that no manifest names may be removed. After half of this time, shipping it uploads it
#: again.
GRACE = 24 * 3600.0

#: Bytes that are held in memory for one upload, and the number of contents that are uploaded without listing the
#: Volume first: the SDK itself sends only blocks that the Volume lacks, but asks for each.
_BATCH = 32 << 20
_FEW = 32


def open_store(names: Names, **scope: Any) -> Store:
    """Return the store of a worker app; ``scope`` holds the SDK's client and environment, if not the default ones."""
    volume = modal.Volume.from_name(names.dags, create_if_missing=True, version=2, **scope)
    return Store(VolumeFiles(volume), names.dags)


class UnknownVersionError(BundleError):
    """The Volume does not have a version that is needed."""


@dataclass(frozen=True)
class CurrentVersion:
    """The content of a bundle's pointer."""

    version: str
    shipped_at: float


class Store:
    """The versions of an app's DAG bundles. ``name`` is the name of its Volume, for messages."""

    def __init__(self, files: Files, name: str) -> None:
        self.files, self.name = files, name

    def bundles(self) -> list[str]:
        """Return the bundles that have a pointer."""
        paths = (each.path.split("/") for each in self.files.list(_BUNDLES))
        folders = [parts[2] for parts in paths if len(parts) == 4 and parts[3] == "current"]
        return sorted(bundle_of_folder(folder) or self._named_by_pointer(folder) for folder in folders)

    def _named_by_pointer(self, folder: str) -> str:
        """Return the bundle of a folder that only has a part of the bundle's name, which is too long."""
        try:
            return str(json.loads(self.files.read(f"{_BUNDLES}/{folder}/current"))["bundle"])
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"Volume {self.name} lacks the name of the DAG bundle in folder {_BUNDLES}/{folder} ({error!r}). "
                "Run `modalflow sync`."
            ) from error

    def current(self, bundle: str) -> CurrentVersion | None:
        """Return the pointer of a bundle; None if it was never shipped."""
        try:
            wire = json.loads(self.files.read(f"{_folder(bundle)}/current"))
            pointer = CurrentVersion(str(wire["version"]), float(wire["shipped_at"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"The record of the current version of DAG bundle {bundle!r} on Volume {self.name} is malformed "
                f"({describe(error)}). Run `modalflow sync`."
            ) from error
        if not is_version(pointer.version):
            raise BundleError(f"{pointer.version!r} on Volume {self.name} is not a DAG version. Run `modalflow sync`.")
        return pointer

    def manifest(self, bundle: str, version: str) -> Manifest:
        """Return a version's files; raise UnknownVersionError if it was never shipped, or has been removed."""
        if not is_version(version):
            raise UnknownVersionError(
                f"{version!r} is not a version of DAG bundle {bundle!r}: expected 64 hexadecimal digits. If the DAG "
                "run was created while this was another kind of bundle, clear it with the latest version."
            )
        try:
            return Manifest.read(self.files.read(f"{_folder(bundle)}/versions/{version}"), version)
        except FileNotFoundError as error:
            raise UnknownVersionError(
                f"Volume {self.name} has no version {version} of DAG bundle {bundle!r}: it was removed, or shipped for "
                "another app. Clear the DAG run with its latest version, or keep versions for longer: "
                "`modalflow sync --prune --keep-days`."
            ) from error

    def content(self, file: File) -> bytes:
        """Return the content with the hash of a manifest's file. Raises BundleError."""
        try:
            content = self.files.read(_blob(file.sha256))
        except FileNotFoundError as error:
            raise BundleError(
                f"Volume {self.name} lacks {file.sha256}, a file of a DAG version. Ship it again: `modalflow sync`."
            ) from error
        if digest(content) != file.sha256:
            raise BundleError(f"{file.sha256} on Volume {self.name} is damaged. Ship it again: `modalflow sync`.")
        return content

    def missing(self, bundle: str, manifest: Manifest) -> dict[str, str]:
        """Return the contents that must be uploaded for a version: hash → a path that has it."""
        wanted = {file.sha256: path for path, file in manifest.files.items()}
        for file in self._latest(bundle).files.values():
            wanted.pop(file.sha256, None)
        if len(wanted) <= _FEW:
            return wanted
        fresh = time.time() - GRACE / 2
        for blob in self.files.list(_BLOBS):
            if blob.changed_at > fresh:
                wanted.pop(blob.path.rpartition("/")[2], None)
        return wanted

    def ship(self, bundle: str, manifest: Manifest, read: Callable[[str, str], bytes]) -> int:
        """Make a version the current one and upload what is missing; return the number of uploaded bytes.

        ``read`` returns the content of a path with a hash. If the content has changed, it raises, and the current
        version stays.
        """
        uploaded = 0
        for batch in _batches(manifest, self.missing(bundle, manifest), read):
            self.files.put(batch)
            uploaded += sum(map(len, batch.values()))
        self.files.put({f"{_folder(bundle)}/versions/{manifest.version}": manifest.content})
        pointer = {"version": manifest.version, "shipped_at": time.time(), "bundle": bundle}
        self.files.put({f"{_folder(bundle)}/current": json.dumps(pointer).encode()})
        return uploaded

    def versions(self, bundle: str) -> list[ListedFile]:
        """Return the manifests of a bundle, the newest first; each path ends in the version."""
        found = self.files.list(f"{_folder(bundle)}/versions")
        return sorted(found, key=lambda each: each.changed_at, reverse=True)

    def contents(self) -> list[ListedFile]:
        """Return all contents; each path ends in the hash."""
        return self.files.list(_BLOBS)

    def _latest(self, bundle: str) -> Manifest:
        """Return the current manifest, whose contents exist for certain: they are never removed."""
        try:
            current = self.current(bundle)
            return self.manifest(bundle, current.version) if current is not None else NOTHING
        except BundleError:
            return NOTHING


def _folder(bundle: str) -> str:
    return f"{_BUNDLES}/{folder_name(bundle)}"


def _blob(sha256: str) -> str:
    return f"{_BLOBS}/{sha256[:2]}/{sha256}"


def _batches(
    manifest: Manifest, missing: Mapping[str, str], read: Callable[[str, str], bytes]
) -> Iterator[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for sha256, path in missing.items():
        if batch and size + manifest.files[path].size > _BATCH:
            yield batch
            batch, size = {}, 0
        content = read(path, sha256)
        batch[_blob(sha256)] = content
        size += len(content)
    if batch:
        yield batch
