"""Bringing a folder's version to the store, whatever its owner is doing to the folder meanwhile. Blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from modalflow.bundles.manifest import NOTHING, Changes, Manifest
from modalflow.bundles.scan import Folder, FolderChangedError
from modalflow.bundles.store import Store
from modalflow.errors import BundleError

#: How often a folder is read anew that changes while it is read, and the seconds between.
_TRIES = 5
_PAUSE = 0.2


@dataclass(frozen=True)
class Shipment:
    """What was shipped of a bundle, or would be."""

    bundle: str
    manifest: Manifest
    changes: Changes
    """Since the version that was current on the Volume."""
    uploaded: int
    """Bytes."""
    seconds: float


def undisturbed(folder: Folder, work: Callable[[Manifest], int]) -> tuple[Manifest, int]:
    """Do something with a folder's manifest, again where a file changes meanwhile; the manifest and what came of it."""
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
    """Make what a folder holds now the current version of a bundle; with ``dry_run``, only see what that would take."""
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
        # Damaged: what is shipped now takes its place.
        return NOTHING
