"""Where the DAG file of a workload is: in a bundle, which the worker has as well, and not at a path of this machine.

Pure: looks at no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"


def local_bundles(listed: str, dags_folder: str) -> dict[str, PurePath]:
    """The local bundles in the text of ``[dag_processor] dag_bundle_config_list``: name → folder.

    Nothing of a text that is no such list: Airflow itself says so of it.
    """
    try:
        bundles: Any = json.loads(listed)
    except ValueError:
        return {}
    return {
        str(bundle["name"]): PurePath((bundle.get("kwargs") or {}).get("path") or dags_folder)
        for bundle in (bundles if isinstance(bundles, list) else ())
        if isinstance(bundle, dict) and bundle.get("classpath") == _LOCAL and bundle.get("name")
    }


def in_its_bundle(workload: Any, bundles: Mapping[str, PurePath]) -> Any:
    """The workload, with an absolute path of its DAG file replaced by the bundle that the file is in.

    ``dag.test(use_executor=True)`` names the file where it is on this machine, and a bundle that need not exist.
    """
    file = PurePath(getattr(workload, "dag_rel_path", ""))
    if not file.is_absolute():
        return workload
    for name, folder in bundles.items():
        if file.is_relative_to(folder):
            known = workload.bundle_info.model_copy(update={"name": name, "version": None})
            return workload.model_copy(update={"dag_rel_path": file.relative_to(folder), "bundle_info": known})
    return workload
