"""The paths of the UI, below the API server's root. The React views use the same."""

from __future__ import annotations

#: What the plugin serves: the API, and the files of the views.
ROOT = "/modalflow/ui"
API = f"{ROOT}/api"
STATIC = f"{ROOT}/static"

#: Beside ROOT: every page of Airflow's UI shows it, and must not wait for the imports of what is below ROOT.
ICON = "/modalflow/icon-{theme}.svg"

#: Below API.
OVERVIEW = "/overview"
WORK = "/work"
SPEND = "/spend"
TASK = "/task/{dag_id}/{run_id}/{task_id}/{map_index}"
RUN = "/run/{dag_id}/{run_id}"
CALL = "/call/{dag_id}/{run_id}/{task_id}/{map_index}/{try_number}"
"""Redirects to the function call of a try: the target of Airflow's extra link."""
CANCEL = "/actions/cancel"
PROFILE = "/actions/profile/{name}/{action}"
"""``action`` is pause, resume or drain."""
DOCTOR = "/actions/doctor"
