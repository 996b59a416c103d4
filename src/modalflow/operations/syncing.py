"""`modalflow sync`: upload the local DAG bundles of this machine to the Volume, and remove old versions there.

Selects the bundles. ``modalflow.bundles`` owns versions and their transfer.
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
    """Return the DAG bundles of this machine's Airflow, and its ``[core] dags_folder``; none without Airflow."""
    if conf is None:
        return [], ""
    from modalflow.airflow_compat.configuration import dag_bundle_config

    return configured.read_bundles(dag_bundle_config(conf)), conf.get("core", "dags_folder", fallback="") or ""


def local_folders(conf: Any | None) -> dict[str, Path]:
    """Return the local DAG bundles of this machine's Airflow: name → folder. Raises BundleError if there are none."""
    bundles, dags_folder = of_airflow(conf)
    found = {bundle.name: bundle.folder(dags_folder) for bundle in bundles if bundle.is_local}
    if not found:
        none = "[dag_processor] dag_bundle_config_list has no local folder without its own shipping"
        why = WITHOUT_AIRFLOW if conf is None else none
        raise BundleError(
            f"There is nothing to sync: {why}. Name a folder: `modalflow sync --dags-bundle NAME=FOLDER`."
        )
    return found


def sync(site: Site, folders: Mapping[str, Path], *, dry_run: bool = False) -> Iterator[Shipment]:
    """Upload each folder's files to the Volume. With ``dry_run``, only compute the changes."""
    store = store_of(site)
    for bundle, folder in folders.items():
        yield ship(store, bundle, Folder(folder), dry_run=dry_run)


def remove_old(site: Site, *, newest: int, days: float, dry_run: bool = False) -> prune.PruneResult:
    """Remove unneeded versions. Raises BundleError if the needed ones are unknown."""
    return prune.prune(store_of(site), prune.RetentionPolicy(newest, days, versions_in_use()), dry_run=dry_run)


def unread(site: Site, bundles: Mapping[str, Path]) -> list[str]:
    """Return the bundles that the deployed worker does not read from the Volume; none without a deployment."""
    deployment = LogVolume(site.control_plane, site.names, create=False).deployment()
    if deployment is None or deployment.dags_source == "volume":
        return []
    return [name for name in bundles if name in deployment.bundles]


def store_of(site: Site) -> Store:
    """Return the store of versions on the Volume of a site's app."""
    return open_store(site.names, **site.scope)
