"""The work that a zygote does once so that no workload has to: imports, and objects that every process would make.

Imports Airflow. Must change nothing that a workload could observe: everything made here is a cache that depends only on
the zygote's settings, or is made again if it failed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from modalflow.airflow_compat import replaced as rows
from modalflow.airflow_compat import supervisor
from modalflow.support.described import describe
from modalflow.support.replaced import ReplacedName, replace
from modalflow.worker.environment import has_remote_logging
from modalflow.worker.logs.log_encoding import escape_surrogates_in_logs
from modalflow.worker.zygote.backends import import_backends

log = logging.getLogger(__name__)

#: Modules that most DAG files import, and modules that Airflow imports late. A missing one is skipped.
_OPTIONAL_MODULES = (
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.bash",
    "airflow.providers.standard.operators.python",
    "airflow.sdk._shared.logging.factory",
    "airflow.sdk._shared.logging.remote",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.decorators",
    "airflow.version",
    "encodings.idna",
    "jinja2.ext",
    "modalflow.worker.hostname",
    "setproctitle",
)

#: The types for which a task makes Airflow build validators: row of the ``TypeAdapter`` of a module → names in that
#: module. A module or type that a version lacks is skipped.
_ADAPTED_TYPES = {
    rows.COMMS_TYPE_ADAPTER: ("ToTask",),
    rows.TASK_RUNNER_TYPE_ADAPTER: ("ToTask", "StartupDetails", "JsonValue"),
}


def warm_up() -> None:
    """Import what a supervised task needs and make what it would make; close the database engine that comes with it.

    Raises the error of a necessary module or class.
    """
    escape_surrogates_in_logs()
    for name in supervisor.modules_of_a_supervised_task():
        import_module(name)
    for name in _OPTIONAL_MODULES:
        with contextlib.suppress(ImportError):
            import_module(name)
    import_backends()
    from airflow.settings import dispose_orm

    dispose_orm(do_log=False)
    if not has_remote_logging(os.environ):
        # Every fork has this descriptor. A remote logging may need a connection, which only a workload brings along.
        supervisor.log_to(sys.stdout.buffer)
    for step in (_read_certificates, _build_adapters):
        try:
            step()
        except Exception:
            log.exception("A step of the warm-up failed; each workload does it for itself now")


def import_preload(listed: str) -> list[str]:
    """Import the modules of a profile's ``preload``, a JSON list; return those that could be imported.

    The preload is a convenience and never fails a container or a task: problems go to the container's log.
    """
    imported = []
    for name in _preload_names(listed):
        try:
            import_module(name)
        except (Exception, SystemExit) as error:
            log.exception("The profile's preload %s cannot be imported: %s", name, describe(error))
        else:
            imported.append(name)
    return imported


def _preload_names(listed: str) -> list[str]:
    try:
        names = json.loads(listed or "[]")
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        log.error("Nothing is preloaded: expected a JSON list of modules, found %r", listed)
        return []
    return names


def _read_certificates() -> None:
    """Make the SSL context that all clients of Airflow's API share: reading the certificates takes 30 ms."""
    from airflow.sdk.api.client import Client

    client: Any = Client(base_url="http://localhost/", token="")
    client.close()


def _build_adapters() -> None:
    """Keep the validators that Airflow would build anew in every process."""
    supervisor.workload_adapter()
    for row, types in _ADAPTED_TYPES.items():
        _cache_adapters(row)
        module = row.owner()
        for name in types:
            if hasattr(module, name):
                module.TypeAdapter(getattr(module, name))


def _cache_adapters(row: ReplacedName) -> None:
    original: Callable[..., Any] = row.original()
    known: dict[int, tuple[object, Any]] = {}

    def type_adapter(type_: object, **options: Any) -> Any:
        if options:
            return original(type_, **options)
        if id(type_) not in known:
            # Names in a type are resolved in the caller's frame, which is one further away than without this function.
            known[id(type_)] = type_, original(type_, _parent_depth=3)
        return known[id(type_)][1]

    replace(row, type_adapter)
