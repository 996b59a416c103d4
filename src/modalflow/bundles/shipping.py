"""Shipment of a folder's version to the store, for any changes during it. Blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modalflow.bundles.manifest import NOTHING, Changes, Manifest
from modalflow.bundles.scan import Folder, FolderChangedError
from modalflow.bundles.store import Store
from modalflow.errors import BundleError

#: Reads of a changing folder, and the seconds between them.
_TRIES = 5
_PAUSE = 0.2


@dataclass(frozen=True)
class Shipment:
    """A shipment of a bundle, done or only computed."""

    bundle: str
    manifest: Manifest
    changes: Changes
    """The changes since the current version on the Volume."""
    uploaded: int
    """Bytes."""
    seconds: float


def undisturbed(folder: Folder, work: Callable[[Manifest], int]) -> tuple[Manifest, int]:
    """Call a function with a folder's manifest, again after a file changes; return the manifest and the result."""
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
    """Make the folder's files the current version of a bundle. With ``dry_run``, only compute the changes."""
    began = time.monotonic()

    def work(manifest: Manifest) -> int:
        if not dry_run:
            return store.ship(bundle, manifest, folder.read)
        sizes = {file.sha256: file.size for file in manifest.files.values()}
        return sum(sizes[sha256] for sha256 in store.missing(bundle, manifest))

    before = _current(store, bundle)
    manifest, uploaded = undisturbed(folder, work)
    return Shipment(bundle, manifest, manifest.since(before), uploaded, time.monotonic() - began)


def _current(store: Store, bundle: str) -> Manifest:
    try:
        current = store.current(bundle)
        return NOTHING if current is None else store.manifest(bundle, current.version)
    except BundleError:
        # Damaged: this shipment replaces it.
        return NOTHING
