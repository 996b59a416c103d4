"""Airflow's plugins, loaded as a task process loads them in every supported version.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS


def load_plugins() -> dict[str, str]:
    """Load all plugins, with their macros and listeners; return the errors of those that cannot be imported.

    The key is a file, a module or a plugin's name. A second call loads nothing again. Raises what Airflow itself lets
    through, such as SystemExit of a plugin.
    """
    prefix = "airflow.sdk" if AIRFLOW_V_3_2_PLUS else "airflow"
    manager: Any = import_module(f"{prefix}.plugins_manager")
    listeners: Any = import_module("airflow.sdk.listener" if AIRFLOW_V_3_2_PLUS else "airflow.listeners.listener")
    manager.integrate_macros_plugins()
    listeners.get_listener_manager()
    return dict(manager._get_plugins()[1] if AIRFLOW_V_3_2_PLUS else manager.import_errors)
