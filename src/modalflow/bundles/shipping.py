"""The upload of a folder's version to the store, even if files of the folder change meanwhile. Blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modalflow.bundles.manifest import NOTHING, Changes, Manifest
from modalflow.bundles.scan import Folder, FolderChangedError
from modalflow.bundles.store import Store
from modalflow.errors import BundleError

#: The attempts to read a folder that changes while it is read, and the seconds between them.
_TRIES = 5
_PAUSE = 0.2


@dataclass(frozen=True)
class Shipment:
    """What was shipped of a bundle, or would be shipped."""

    bundle: str
    manifest: Manifest
    changes: Changes
    """The differences from the version that was current on the Volume."""
    uploaded: int
    """Bytes that were uploaded."""
    seconds: float


def with_manifest(folder: Folder, work: Callable[[Manifest], int]) -> tuple[Manifest, int]:
    """Call ``work`` with a folder's manifest, again if a file changes meanwhile; return the manifest and the result."""
    for attempt in range(_TRIES):
        try:
            manifest = folder.manifest()
            return manifest, work(manifest)
        except FolderChangedError:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(_PAUSE)
    raise AssertionError("unreachable")


def ship(store: Store, bundle: str, folder: Folder, *, dry_run: bool = False) -> Shipment:
    """Make the present content of a folder the current version of a bundle; with ``dry_run``, only plan that."""
    began = time.monotonic()

    def work(manifest: Manifest) -> int:
        if not dry_run:
            return store.ship(bundle, manifest, folder.read)
        sizes = {file.sha256: file.size for file in manifest.files.values()}
        return sum(sizes[sha256] for sha256 in store.missing(bundle, manifest))

    before = _current(store, bundle)
    manifest, uploaded = with_manifest(folder, work)
    return Shipment(bundle, manifest, manifest.since(before), uploaded, time.monotonic() - began)


def _current(store: Store, bundle: str) -> Manifest:
    try:
        current = store.current(bundle)
        return NOTHING if current is None else store.manifest(bundle, current.version)
    except BundleError:
        # It is damaged. The new version replaces it.
        return NOTHING
