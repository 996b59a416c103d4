"""Airflow's extra link of a task instance: the function call of a try. Cheap to import.

Airflow's API server asks for it, never a task: Airflow stores links of operators in the task's process, and computes
those of plugins when a user opens the task instance.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from modalflow.names import dashboard_url

log = logging.getLogger(__name__)

class FunctionCallLink:
    """Leads to the function call on Modal, or to the tab with it if the control plane is a local one."""

    name = "Modal function call"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address for a try; empty if it has no function call. One query, no request to Modal."""
        try:
            return link_of(ti_key)
        except Exception:  # Otherwise Airflow would show none of the task's links.
            log.exception("The link of %s is missing", ti_key)
            return ""


def link_of(key: Any) -> str:
    """Return the address of a try's function call; empty if it has none. ``key`` has the ids, as a ``TaskTry``."""
    from modalflow.control_plane import is_emulated
    from modalflow.ui.sources.airflow_rows import call_of

    row = call_of(key.dag_id, key.run_id, key.task_id, key.map_index, key.try_number)
    if row is None or not row.function_call_id:
        return ""
    return _tab(key) if is_emulated() else dashboard_url(row.function_call_id)


def _tab(key: Any) -> str:
    from airflow.api_fastapi.app import API_ROOT_PATH

    from modalflow.ui.bundle import PLACES

    mapped = f"/mapped/{key.map_index}" if key.map_index >= 0 else ""
    instance = f"dags/{quote(key.dag_id)}/runs/{quote(key.run_id)}/tasks/{quote(key.task_id)}{mapped}"
    return f"{API_ROOT_PATH}{instance}/plugin/{PLACES['task_instance']}?try_number={key.try_number}"
