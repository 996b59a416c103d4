"""The removal of old versions of DAG bundles from the Volume, and of contents that no version has any more.

A version is removed if it is not the current one, not among the newest, older than a number of days, and not needed by
a DAG run. A content is removed a day after its upload at the earliest, because contents are uploaded before the version
that has them. Blocks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modalflow.bundles.files import ListedFile
from modalflow.bundles.store import GRACE, Store

_DAY = 24 * 3600.0
_AT_ONCE = 16


@dataclass(frozen=True)
class RetentionPolicy:
    """The versions that are kept."""

    newest: int = 10
    """The number of newest versions of each bundle."""
    days: float = 30.0
    needed: Mapping[str, Collection[str]] | None = None
    """Bundle → versions of unfinished DAG runs."""


@dataclass(frozen=True)
class PruneResult:
    """What was removed, or would be removed."""

    versions: Mapping[str, tuple[str, ...]]
    """Bundle → versions."""
    contents: int
    size: int
    """Their bytes."""


def prune(store: Store, policy: RetentionPolicy, *, dry_run: bool = False) -> PruneResult:
    """Remove what is old; raise BundleError, and remove nothing, if the store cannot be read."""
    now = time.time()
    old = {bundle: _old(store, bundle, policy, now) for bundle in store.bundles()}
    contents = _unused(store, old, now)
    if not dry_run:
        # Manifests first: no visible version may lack contents.
        _remove(store, [entry for entries in old.values() for entry in entries])
        _remove(store, contents)
    versions = {bundle: tuple(map(_last, entries)) for bundle, entries in old.items() if entries}
    return PruneResult(versions, len(contents), sum(entry.size for entry in contents))


def _old(store: Store, bundle: str, policy: RetentionPolicy, now: float) -> list[ListedFile]:
    current = store.current(bundle)
    needed = {*(policy.needed or {}).get(bundle, ()), current.version if current else ""}
    return [
        entry
        for entry in store.versions(bundle)[policy.newest :]
        if entry.changed_at < now - policy.days * _DAY and _last(entry) not in needed
    ]


def _unused(store: Store, old: Mapping[str, list[ListedFile]], now: float) -> list[ListedFile]:
    kept = [
        (bundle, _last(entry))
        for bundle, entries in old.items()
        for entry in store.versions(bundle)
        if entry not in entries
    ]
    # Listed before the manifests are read: contents that are shipped from now on are too young to be removed.
    contents = store.contents()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-dags") as pool:
        manifests = pool.map(lambda each: store.manifest(*each), kept)
        used = {file.sha256 for manifest in manifests for file in manifest.files.values()}
    return [entry for entry in contents if _last(entry) not in used and entry.changed_at < now - GRACE]


def _remove(store: Store, entries: list[ListedFile]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-dags") as pool:
        list(pool.map(store.files.remove, [entry.path for entry in entries]))


def _last(entry: ListedFile) -> str:
    return entry.path.rpartition("/")[2]
