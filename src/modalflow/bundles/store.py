"""The versions of DAG bundles on a Volume: contents by their hash, one manifest for each version, one pointer a bundle.

    v1/blobs/ab/abcd…                         a content, shared by all its versions
    v1/bundles/<bundle>/versions/<version>    a manifest
    v1/bundles/<bundle>/current               the default version

Writes go in this order, contents first, so a visible version is complete. Nothing is ever changed, so readers need no
lock. Two parallel shipments write the same bytes, and the later pointer wins. Blocks; does not decide the age of a
version.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import modal

from modalflow.bundles.files import Entry, Files, VolumeFiles
from modalflow.bundles.manifest import NOTHING, File, Manifest, bundle_of_folder, digest, folder_name, is_version
from modalflow.errors import BundleError
from modalflow.names import Names
from modalflow.support.described import describe

_BLOBS, _BUNDLES = "v1/blobs", "v1/bundles"

#: Seconds until a content without a manifest may be removed. After half of them, a parallel shipment writes the content
#: again.
GRACE = 24 * 3600.0

#: Bytes in memory for one upload, and the number of contents to upload without a check: the SDK itself sends only
#: missing blocks, but asks for each.
_BATCH = 32 << 20
_FEW = 32


def open_store(names: Names, **scope: Any) -> Store:
    """Return the store of a worker app. ``scope`` holds the SDK's client and environment, if they are not the
    process's."""
    volume = modal.Volume.from_name(names.dags, create_if_missing=True, version=2, **scope)
    return Store(VolumeFiles(volume), names.dags)


class UnknownVersionError(BundleError):
    """The Volume lacks a requested version."""


@dataclass(frozen=True)
class Current:
    """The content of a bundle's pointer."""

    version: str
    shipped_at: float


class Store:
    """The versions of an app's DAG bundles. ``name`` is its Volume's, for messages."""

    def __init__(self, files: Files, name: str) -> None:
        self.files, self.name = files, name

    def bundles(self) -> list[str]:
        """Return the bundles with a pointer."""
        paths = (each.path.split("/") for each in self.files.list(_BUNDLES))
        folders = [parts[2] for parts in paths if len(parts) == 4 and parts[3] == "current"]
        return sorted(bundle_of_folder(folder) or self._named_by_pointer(folder) for folder in folders)

    def _named_by_pointer(self, folder: str) -> str:
        """Return the bundle of a folder with a shortened name."""
        try:
            return str(json.loads(self.files.read(f"{_BUNDLES}/{folder}/current"))["bundle"])
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"Volume {self.name} does not name the DAG bundle in its folder {_BUNDLES}/{folder} ({error!r}). "
                "Run `modalflow sync`."
            ) from error

    def current(self, bundle: str) -> Current | None:
        """Return the pointer of a bundle; None without any shipment."""
        try:
            wire = json.loads(self.files.read(f"{_folder(bundle)}/current"))
            pointer = Current(str(wire["version"]), float(wire["shipped_at"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"The current version of DAG bundle {bundle!r} on Volume {self.name} is malformed "
                f"({describe(error)}). Run `modalflow sync`."
            ) from error
        if not is_version(pointer.version):
            raise BundleError(f"{pointer.version!r} on Volume {self.name} is no DAG version. Run `modalflow sync`.")
        return pointer

    def manifest(self, bundle: str, version: str) -> Manifest:
        """Return a version's files. Raises UnknownVersionError if it was never shipped, or removed."""
        if not is_version(version):
            raise UnknownVersionError(
                f"{version!r} is not a version of DAG bundle {bundle!r}: expected 64 hexadecimal digits. If the DAG "
                "run is older than this kind of bundle, clear it with the latest version."
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
        """Return the content with this hash. Raises BundleError if it is unavailable."""
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
        """Return the contents to upload for a version: hash → a path with it."""
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
        """Make a version the current one, with an upload of missing contents. Return the uploaded bytes.

        ``read`` returns the content of a path with a hash. It raises if the file has changed; then nothing changes.
        """
        uploaded = 0
        for batch in _batches(manifest, self.missing(bundle, manifest), read):
            self.files.put(batch)
            uploaded += sum(map(len, batch.values()))
        self.files.put({f"{_folder(bundle)}/versions/{manifest.version}": manifest.content})
        pointer = {"version": manifest.version, "shipped_at": time.time(), "bundle": bundle}
        self.files.put({f"{_folder(bundle)}/current": json.dumps(pointer).encode()})
        return uploaded

    def versions(self, bundle: str) -> list[Entry]:
        """Return the manifests of a bundle, the newest first. Each path ends in its version."""
        found = self.files.list(f"{_folder(bundle)}/versions")
        return sorted(found, key=lambda each: each.changed_at, reverse=True)

    def contents(self) -> list[Entry]:
        """All contents; each one's path ends in its hash."""
        return self.files.list(_BLOBS)

    def _latest(self, bundle: str) -> Manifest:
        """Return the contents that certainly exist: nothing in the pointer's version is ever removed."""
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
