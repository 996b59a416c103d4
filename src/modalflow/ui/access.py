"""Who asks, and what Airflow's auth manager permits: the same checks as those of Airflow's own API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from airflow.models.log import Log
from airflow.utils.session import create_session
from fastapi import HTTPException, Request, status
from sqlalchemy import select

from modalflow.airflow_compat.configuration import is_multi_team, own_conf
from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS
from modalflow.names import TaskTry
from modalflow.support.text import STORED, clean
from modalflow.ui.views.visible import Visible

__all__ = ["Access", "GetUserDep", "from_own_page", "record"]


class Access:
    """The permissions of the user of one request."""

    def __init__(self, request: Request, user: Any) -> None:
        self._request = request
        self._user = user
        self._manager: Any = get_auth_manager()

    @property
    def name(self) -> str:
        """Return the name of the user."""
        return str(self._user.get_name())

    @property
    def user_id(self) -> str:
        """Return the id of the user, as Airflow's audit log has it."""
        return str(self._user.get_id())

    @property
    def manages(self) -> bool:
        """Whether the user may change pools: then also the state of profiles, which limit tasks in the same way.

        With teams, a profile is of all of them, and so must the user be.
        """
        return bool(self._manager.is_authorized_pool(method="PUT", user=self._user)) and self._teams("PUT") is None

    @property
    def may_examine(self) -> bool:
        """Whether the user may run the doctor: it shows settings, and starts a container."""
        return self.manages and bool(self._manager.is_authorized_configuration(method="GET", user=self._user))

    @property
    def sees_cluster(self) -> bool:
        """Whether the user may see Airflow's cluster activity."""
        return bool(self._manager.is_authorized_view(access_view=AccessView.CLUSTER_ACTIVITY, user=self._user))

    def visible(self) -> Visible:
        """Return what the user may see, by the DAGs of Airflow's database."""
        cluster = self.sees_cluster
        readable = self._dags_with_tasks("GET")
        with create_session() as session:
            known = set(session.scalars(select(DagModel.dag_id)))
        # Without any DAG, that a user may read all of them means nothing.
        everything = cluster and known <= readable and (bool(known) or self.manages)
        teams = self._teams("GET")
        # Work of deleted DAGs can be of any team.
        return Visible(readable, everything and teams is None, cluster, teams)

    def editable(self) -> set[str]:
        """Return the DAGs whose task instances the user may edit."""
        return self._dags_with_tasks("PUT")

    def _dags_with_tasks(self, method: Any) -> set[str]:
        """Return the DAGs with this access, if the user has it to task instances at all, as Airflow's lists do."""
        tasks = self._manager.is_authorized_dag(
            method=method, access_entity=DagAccessEntity.TASK_INSTANCE, details=DagDetails(id=None), user=self._user
        )
        return set(self._manager.get_authorized_dag_ids(user=self._user, method=method)) if tasks else set()

    def _teams(self, method: Any) -> frozenset[str] | None:
        """Return the user's teams; None if Airflow has no teams, or if the user has access to all of them."""
        # Before Airflow 3.2, teams have no executors and no permissions.
        if not AIRFLOW_V_3_2_PLUS or not is_multi_team():
            return None
        from airflow.models.team import Team

        try:
            found = frozenset(self._manager.get_authorized_teams(user=self._user, method=method))
        except NotImplementedError:
            # The auth manager knows no teams.
            found = frozenset()
        known = Team.get_all_team_names()
        return None if found >= known else found

    def may_read_tasks_of(self, dag_id: str) -> bool:
        """Return whether the user may read the task instances of a DAG."""
        return self._permits("GET", dag_id)

    def may_edit_tasks_of(self, dag_id: str) -> bool:
        """Return whether the user may edit the task instances of a DAG, for example mark them failed."""
        return self._permits("PUT", dag_id)

    def require_reading(self, dag_id: str) -> None:
        """Raise 404 for a DAG whose task instances the user may not read, as for one that does not exist."""
        if not self.may_read_tasks_of(dag_id):
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"There is no DAG {dag_id!r} that you may read")

    def _permits(self, method: Any, dag_id: str) -> bool:
        try:
            requires_access_dag(method, DagAccessEntity.TASK_INSTANCE, dag_id)(self._request, self._user)
        except HTTPException:
            return False
        return True


def from_own_page(request: Request) -> None:
    """Raise 403 for a request that another site has made a browser send, and 415 if it is not JSON.

    The browser adds Airflow's cookie to such requests. One without these headers is of a program with a token.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "Send JSON, with content-type: application/json")
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = site == "same-origin" if site else not origin or _host_of(origin) in _own_names(request)
    if not own:
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Only pages of this Airflow can send this request")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _own_names(request: Request) -> set[str]:
    """Return this Airflow's host and port for browsers: a proxy in front of it may ask for another host."""
    # Browsers add sec-fetch-site only to requests over HTTPS, or to this machine.
    base_url = own_conf().get("api", "base_url", fallback="") or ""
    return {request.headers.get("host", ""), urlsplit(base_url).netloc} - {""}


def record(access: Access, event: str, text: str, task: TaskTry | None = None) -> None:
    """Write an action into Airflow's audit log."""
    entry = Log(event=event, owner=access.user_id, owner_display_name=access.name, extra=clean(text, STORED))
    if task is not None:
        entry.dag_id, entry.task_id, entry.run_id = task.dag_id, task.task_id, task.run_id
        entry.map_index, entry.try_number = task.map_index, task.try_number
    with create_session() as session:
        session.add(entry)
