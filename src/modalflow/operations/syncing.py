"""`modalflow sync`: bring the local DAG bundles of this machine to the Volume, and remove what is old there.

Knows which bundles those are. What a version is, and how it travels, is modalflow.bundles'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modalflow.bundles import configured, prune
from modalflow.bundles.configured import ConfiguredBundle
from modalflow.bundles.in_use import versions_in_use
from modalflow.bundles.scan import Folder
from modalflow.bundles.shipping import Shipment, ship
from modalflow.bundles.store import Store, open_store
from modalflow.errors import BundleError
from modalflow.logs.log_volume import LogVolume
from modalflow.operations.doctor.airflow_side import WITHOUT_AIRFLOW
from modalflow.operations.site import Site


def of_airflow(conf: Any | None) -> tuple[list[ConfiguredBundle], str]:
    """The DAG bundles of this machine's Airflow, and its ``[core] dags_folder``; none without Airflow."""
    if conf is None:
        return [], ""
    from modalflow.airflow_compat.configuration import dag_bundle_config

    return configured.read_bundles(dag_bundle_config(conf)), conf.get("core", "dags_folder", fallback="") or ""


def local_folders(conf: Any | None) -> dict[str, Path]:
    """The local DAG bundles of this machine's Airflow: name → folder. BundleError where there is none to bring."""
    bundles, dags_folder = of_airflow(conf)
    found = {bundle.name: bundle.folder(dags_folder) for bundle in bundles if bundle.is_local}
    if not found:
        none = "no bundle of [dag_processor] dag_bundle_config_list is a local folder that does not ship itself"
        why = WITHOUT_AIRFLOW if conf is None else none
        raise BundleError(f"There is nothing to sync: {why}. Name one: `modalflow sync --dags-bundle NAME=FOLDER`.")
    return found


def sync(site: Site, folders: Mapping[str, Path], *, dry_run: bool = False) -> Iterator[Shipment]:
    """Bring each folder's files to the Volume; with ``dry_run``, only see what that would take."""
    store = store_of(site)
    for bundle, folder in folders.items():
        yield ship(store, bundle, Folder(folder), dry_run=dry_run)


def remove_old(site: Site, *, newest: int, days: float, dry_run: bool = False) -> prune.PruneResult:
    """Remove the versions that nothing needs; BundleError where that cannot be known."""
    return prune.prune(store_of(site), prune.RetentionPolicy(newest, days, versions_in_use()), dry_run=dry_run)


def unread(site: Site, bundles: Mapping[str, Path]) -> list[str]:
    """Those of the bundles that the deployed worker does not read from the Volume; none where none is deployed."""
    deployment = LogVolume(site.control_plane, site.names, create=False).deployment()
    if deployment is None or deployment.dags_source == "volume":
        return []
    return [name for name in bundles if name in deployment.bundles]


def store_of(site: Site) -> Store:
    """The versions on the Volume of a site's app."""
    return open_store(site.names, **site.scope)
