"""Checks of the DAG files on this machine against those on the worker's Volume.

Reads both, changes neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modalflow.bundles.configured import ConfiguredBundle
from modalflow.bundles.manifest import Manifest
from modalflow.bundles.scan import Folder
from modalflow.bundles.store import Store, open_store
from modalflow.errors import ConfigError, ModalflowError
from modalflow.names import Names
from modalflow.operations.doctor.findings import Finding, fail, ok, timed, warn
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.operations.syncing import of_airflow, store_of
from modalflow.protocol.messages import Deployment
from modalflow.support.described import describe

_SYNC = "Upload it: `modalflow sync`."
_SHIPS = (
    "Airflow's DAG processor ships it at its next refresh ([dag_processor] refresh_interval, or the bundle's own). If "
    "it does not, its log has the reason."
)


def examine(site: Site, conf: Any | None, deployment: Deployment | None) -> Iterator[Finding]:
    """Yield a finding for each bundle on a Volume."""
    try:
        bundles, dags_folder = of_airflow(conf)
    except ConfigError as error:
        yield fail("DAG bundles", str(error), "Fix it in airflow.cfg or its environment variable.")
        return
    synced = deployment.bundles if deployment is not None and deployment.dags_source == "volume" else {}
    for bundle in bundles:
        if bundle.is_local and bundle.name in synced:
            yield _compare(bundle, dags_folder, store_of(site), _SYNC)
        elif bundle.ships_itself:
            yield _compare(bundle, dags_folder, _store_of(bundle, site), _SHIPS)


def _store_of(bundle: ConfiguredBundle, site: Site) -> Store:
    scope = dict(site.scope)
    if environment := bundle.kwargs.get("environment"):
        scope["environment_name"] = environment
    return open_store(Names(str(bundle.kwargs.get("app") or site.names.app)), **scope)


def _compare(bundle: ConfiguredBundle, dags_folder: str, store: Store, advice: str) -> Finding:
    name = f"DAG files of {bundle.name}"
    folder = bundle.folder(dags_folder)
    try:
        here = Folder(folder).manifest()
    except ModalflowError as error:
        return fail(name, str(error), "Fix the folder, or the bundle's path in [dag_processor] dag_bundle_config_list.")
    try:
        there, seconds = timed(lambda: within(PATIENCE, lambda: _newest(store, bundle.name)))
    except FAILURES as error:
        return fail(name, f"Volume {store.name}: {describe(error)}", advice)
    if there is None:
        return fail(name, f"Volume {store.name} has no files of it", advice)
    changes = here.since(there)
    if changes:
        counts = {"new": changes.added, "changed": changes.changed, "deleted": changes.removed}
        different = ", ".join(f"{len(paths)} {what}" for what, paths in counts.items() if paths)
        return warn(name, f"{folder} is ahead of Volume {store.name}: {different}", advice)
    return ok(name, f"{len(here.files)} files, the same in {folder} and on Volume {store.name}", seconds)


def _newest(store: Store, bundle: str) -> Manifest | None:
    current = store.current(bundle)
    return None if current is None else store.manifest(bundle, current.version)
