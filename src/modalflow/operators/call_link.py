"""The link from a task instance to its function call in Modal's dashboard."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink

from modalflow.names import dashboard_url


class ModalFunctionCallLink(BaseOperatorLink):
    """The page of the last function call of a task instance. A call on a local control plane has none."""

    @property
    def name(self) -> str:
        """The text of the button in Airflow's UI."""
        # The link of ModalExecutor's own function call is called "Modal function call".
        return "Called Modal Function"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty text without a call. Airflow asks for it in the process of the task."""
        # Not when a DAG file is parsed: it imports Modal's SDK.
        from modalflow.control_plane import is_emulated

        function_call_id = str(getattr(operator, "function_call_id", None) or "")
        return dashboard_url(function_call_id) if function_call_id.startswith("fc-") and not is_emulated() else ""
