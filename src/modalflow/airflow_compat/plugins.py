"""Airflow's plugins, loaded as a task process loads them in every supported version.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS


def load_plugins() -> dict[str, str]:
    """Load all plugins, with their macros and listeners; return the errors of failing ones.

    The key is a file, a module or a plugin's name. A second call loads nothing again. Raises a plugin's SystemExit, as
    Airflow does.
    """
    manager = _manager()
    manager.integrate_macros_plugins()
    _listeners().get_listener_manager()
    return dict(manager._get_plugins()[1] if AIRFLOW_V_3_2_PLUS else manager.import_errors)


def loaded_plugins() -> list[str]:
    """Return the names of the plugins that ``load_plugins`` could load, sorted."""
    manager = _manager()
    found = manager._get_plugins()[0] if AIRFLOW_V_3_2_PLUS else manager.plugins
    return sorted(str(plugin.name) for plugin in found or ())


def unload_plugins() -> None:
    """Make the next use of plugins load them again, as in a new process."""
    manager, listeners = _manager(), _listeners()
    if AIRFLOW_V_3_2_PLUS:
        for cached in (manager._get_plugins, manager.integrate_macros_plugins, listeners.get_listener_manager):
            cached.cache_clear()
        return
    manager.loaded_plugins.clear()
    manager.import_errors.clear()
    manager.plugins = manager.macros_modules = None
    listeners._listener_manager = None


def _listeners() -> Any:
    return import_module("airflow.sdk.listener" if AIRFLOW_V_3_2_PLUS else "airflow.listeners.listener")


def _manager() -> Any:
    return import_module(f"{'airflow.sdk' if AIRFLOW_V_3_2_PLUS else 'airflow'}.plugins_manager")
