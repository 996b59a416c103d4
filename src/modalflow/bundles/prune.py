"""Removal of old versions of DAG bundles from the Volume, and of contents without a version.

A version is removed if it is not the current one, not among the newest, older than a number of days, and not in use. A
content is removed at the earliest a day after its upload, because a shipment uploads contents first. Blocks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modalflow.bundles.files import Entry
from modalflow.bundles.store import GRACE, Store

_DAY = 24 * 3600.0
_AT_ONCE = 16


@dataclass(frozen=True)
class Keep:
    """The rules for versions to keep."""

    newest: int = 10
    """Of each bundle."""
    days: float = 30.0
    needed: Mapping[str, Collection[str]] | None = None
    """Bundle → versions of unfinished DAG runs."""


@dataclass(frozen=True)
class Pruned:
    """The removed versions and contents, or those to remove."""

    versions: Mapping[str, tuple[str, ...]]
    """Bundle → versions."""
    contents: int
    size: int
    """Bytes."""


def prune(store: Store, keep: Keep, *, dry_run: bool = False) -> Pruned:
    """Remove old versions. Raises BundleError, and removes nothing, if the store is invalid."""
    now = time.time()
    old = {bundle: _old(store, bundle, keep, now) for bundle in store.bundles()}
    contents = _unused(store, old, now)
    if not dry_run:
        # Manifests first: a version without its contents must not be visible.
        _remove(store, [entry for entries in old.values() for entry in entries])
        _remove(store, contents)
    versions = {bundle: tuple(map(_last, entries)) for bundle, entries in old.items() if entries}
    return Pruned(versions, len(contents), sum(entry.size for entry in contents))


def _old(store: Store, bundle: str, keep: Keep, now: float) -> list[Entry]:
    current = store.current(bundle)
    needed = {*(keep.needed or {}).get(bundle, ()), current.version if current else ""}
    return [
        entry
        for entry in store.versions(bundle)[keep.newest :]
        if entry.changed_at < now - keep.days * _DAY and _last(entry) not in needed
    ]


def _unused(store: Store, old: Mapping[str, list[Entry]], now: float) -> list[Entry]:
    kept = [
        (bundle, _last(entry))
        for bundle, entries in old.items()
        for entry in store.versions(bundle)
        if entry not in entries
    ]
    # Listed before the manifests are read: later shipments are too young for removal.
    contents = store.contents()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-dags") as pool:
        manifests = pool.map(lambda each: store.manifest(*each), kept)
        used = {file.sha256 for manifest in manifests for file in manifest.files.values()}
    return [entry for entry in contents if _last(entry) not in used and entry.changed_at < now - GRACE]


def _remove(store: Store, entries: list[Entry]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-dags") as pool:
        list(pool.map(store.files.remove, [entry.path for entry in entries]))


def _last(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]
