"""What a zygote does once so that no workload has to: imports, and what Airflow makes anew in every process.

Imports Airflow. Must change nothing that a workload could tell: whatever is made here is a cache of something that
depends on the zygote's settings alone, or is made again where it failed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from modalflow import airflow_compat
from modalflow.worker.environment import has_remote_logging
from modalflow.worker.logs.log_encoding import spell_out_surrogates

log = logging.getLogger(__name__)

#: What most DAG files import, and what is imported late. Nothing is missing where it is missing.
_PRELOADED_IF_THERE = (
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


def warm_up() -> None:
    """Import what a supervised task needs, and make what it would make; let go of the database engine that comes with
    it."""
    spell_out_surrogates()
    for name in airflow_compat.modules_of_a_supervised_task():
        import_module(name)
    for name in _PRELOADED_IF_THERE:
        with contextlib.suppress(ImportError):
            import_module(name)
    from airflow.settings import dispose_orm

    dispose_orm(do_log=False)
    if not has_remote_logging(os.environ):
        # To a descriptor that every fork has. A remote logging may need a connection, which a workload brings.
        airflow_compat.log_to(sys.stdout.buffer)
    for step in (_read_certificates, _build_adapters):
        try:
            step()
        except Exception:
            log.exception("Not warmed up: each workload does this by itself now")


def _read_certificates() -> None:
    """Have the context made that every client of Airflow's API shares: reading all certificates takes 30 ms."""
    from airflow.sdk.api.client import Client

    client: Any = Client(base_url="http://localhost/", token="")
    client.close()


def _build_adapters() -> None:
    """Keep the validators that Airflow builds anew in every process."""
    airflow_compat.workload_adapter()
    for module_name, types in airflow_compat.ADAPTED_IN_A_TASK.items():
        module = import_module(module_name)
        _remember_adapters(module)
        for name in types:
            if hasattr(module, name):
                module.TypeAdapter(getattr(module, name))


def _remember_adapters(module: ModuleType) -> None:
    original: Callable[..., Any] = module.TypeAdapter
    known: dict[int, tuple[object, Any]] = {}

    def type_adapter(type_: object, **how: Any) -> Any:
        if how:
            return original(type_, **how)
        if id(type_) not in known:
            # The names in a type are looked up where it is used: one frame further away than without this one.
            known[id(type_)] = type_, original(type_, _parent_depth=3)
        return known[id(type_)][1]

    setattr(module, "TypeAdapter", type_adapter)  # noqa: B010  A module has no such attribute for mypy.
