"""The versions of DAG bundles on a Volume: contents by their hash, one manifest for each version, one pointer a bundle.

    v1/blobs/ab/abcd…                         a content, shared by all that have it
    v1/bundles/<bundle>/versions/<version>    a manifest
    v1/bundles/<bundle>/current               the version that whoever asks for none gets

Written in this order, contents first, so that a version that can be seen is complete. Nothing is ever changed, so
readers need no lock. Two who ship at once write the same bytes; the later pointer wins. Blocks; does not decide what is
old.
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

#: Seconds after which a content that no manifest names may be removed. Whoever ships it meanwhile writes it anew once
#: half of them are over.
GRACE = 24 * 3600.0

#: Bytes that are held in memory for one upload, and how many contents may be uploaded without asking what is there:
#: the SDK itself sends only blocks that the Volume lacks, but asks for each.
_BATCH = 32 << 20
_FEW = 32


def open_store(names: Names, **scope: Any) -> Store:
    """The store of a worker app; ``scope`` holds the SDK's client and environment where they are not the process's."""
    volume = modal.Volume.from_name(names.dags, create_if_missing=True, version=2, **scope)
    return Store(VolumeFiles(volume), names.dags)


class UnknownVersionError(BundleError):
    """The Volume does not have a version that somebody needs."""


@dataclass(frozen=True)
class Current:
    """What a bundle's pointer says."""

    version: str
    shipped_at: float


class Store:
    """The versions of an app's DAG bundles. ``name`` is its Volume's, for messages."""

    def __init__(self, files: Files, name: str) -> None:
        self.files, self.name = files, name

    def bundles(self) -> list[str]:
        """The bundles that have a pointer."""
        paths = (each.path.split("/") for each in self.files.list(_BUNDLES))
        folders = [parts[2] for parts in paths if len(parts) == 4 and parts[3] == "current"]
        return sorted(bundle_of_folder(folder) or self._named_by_pointer(folder) for folder in folders)

    def _named_by_pointer(self, folder: str) -> str:
        """Return the bundle of a folder whose name has not all of the bundle's, which is too long for one."""
        try:
            return str(json.loads(self.files.read(f"{_BUNDLES}/{folder}/current"))["bundle"])
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"Volume {self.name} does not say which DAG bundle is in its folder {_BUNDLES}/{folder} ({error!r}). "
                "Run `modalflow sync`."
            ) from error

    def current(self, bundle: str) -> Current | None:
        """The pointer of a bundle; None where none was ever shipped."""
        try:
            wire = json.loads(self.files.read(f"{_folder(bundle)}/current"))
            pointer = Current(str(wire["version"]), float(wire["shipped_at"]))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"What is stored on Volume {self.name} as the current version of DAG bundle {bundle!r} is malformed "
                f"({describe(error)}). Run `modalflow sync`."
            ) from error
        if not is_version(pointer.version):
            raise BundleError(f"{pointer.version!r} on Volume {self.name} is no DAG version. Run `modalflow sync`.")
        return pointer

    def manifest(self, bundle: str, version: str) -> Manifest:
        """A version's files; UnknownVersionError where it was never shipped, or has been removed."""
        if not is_version(version):
            raise UnknownVersionError(
                f"{version!r} is no version of DAG bundle {bundle!r}: expected 64 hexadecimal digits. A DAG run that "
                "was made while this was another kind of bundle runs when it is cleared with the latest version."
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
        """What a manifest calls by this hash; BundleError where that is not to be had."""
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
        """The contents that would have to be uploaded for a version: hash → a path that has it."""
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
        """Make a version the current one, uploading what is missing; the bytes that were uploaded.

        ``read`` returns the content of a path that has a hash, and raises where it has changed; then nothing changes.
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
        """The manifests of a bundle, the newest first; each one's path ends in its version."""
        found = self.files.list(f"{_folder(bundle)}/versions")
        return sorted(found, key=lambda each: each.changed_at, reverse=True)

    def contents(self) -> list[Entry]:
        """All contents; each one's path ends in its hash."""
        return self.files.list(_BLOBS)

    def _latest(self, bundle: str) -> Manifest:
        """What is certainly there: nothing that the pointer names is ever removed."""
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
