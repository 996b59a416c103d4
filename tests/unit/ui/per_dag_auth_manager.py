"""An auth manager for tests: who reads and edits which DAG, as the simple one cannot express."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

#: User → the DAGs that the user may read.
READABLE = {"ada": {"losses"}, "eve": {"secret"}, "vera": {"losses"}, "dan": {"losses"}}
#: Users who may read no task instances.
WITHOUT_TASKS = {"dan"}
#: Users who may not edit.
VIEWERS = {"vera"}


class PerDagAuthManager(SimpleAuthManager):
    """Airflow's simple auth manager, in which users with the role USER have some DAGs only, and no cluster view."""

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        """Return whether the DAG is one of the user's."""
        if user.username not in READABLE:
            return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        if method != "GET" and user.username in VIEWERS:
            return False
        if access_entity is DagAccessEntity.TASK_INSTANCE and user.username in WITHOUT_TASKS:
            return False
        return details is None or details.id is None or details.id in READABLE[user.username]

    def is_authorized_view(self, *, access_view: Any, user: Any) -> bool:
        """Return whether the user may see this page of Airflow."""
        if user.username in READABLE:
            # Without it, Airflow's UI has no page and no tab of a plugin.
            return bool(access_view is AccessView.PLUGINS)
        return super().is_authorized_view(access_view=access_view, user=user)
