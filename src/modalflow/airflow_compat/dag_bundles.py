"""Airflow's DAG bundles: their names and versions."""

from __future__ import annotations

from typing import Any


def bundle_names(bundles: Any) -> list[str]:
    """Return the names of a DagBundlesManager's bundles; 3.0 has no method for it."""
    if hasattr(bundles, "get_all_bundle_names"):
        return list(bundles.get_all_bundle_names())
    return list(bundles._bundle_config)


def configured_bundles() -> list[str]:
    """Return the names of this process's DAG bundles in Airflow; none if they cannot be read."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    manager: Any = DagBundlesManager
    try:
        return bundle_names(manager())
    except Exception:  # noqa: BLE001  Bundles are users' classes, and their configuration may be anything.
        return []


def bundle_version(version: str) -> Any:
    """Return a DAG bundle's version in the form for a bundle's result."""
    from airflow.dag_processing.bundles import base

    return base.BundleVersion(version=version) if hasattr(base, "BundleVersion") else version
