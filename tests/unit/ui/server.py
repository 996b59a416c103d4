"""Airflow's real API server in this process, with the plugin, on tables with two DAGs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from airflow import settings
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.orm import sessionmaker

from modalflow import airflow_plugin
from modalflow.cost.recorded_call import RecordedCall
from modalflow.errors import ControlPlaneUnreachableError
from modalflow.operations.inventory import Inventory
from modalflow.operations.site import Site
from modalflow.ui.app import create_app
from modalflow.ui.sources.cached import Cached
from modalflow.ui.sources.live_state import LiveState
from modalflow.ui.sources.sources import Sources
from tests.support import wait_until
from tests.unit.executor.airflow_tables import AirflowTables, airflow_tables

API = "/modalflow/ui/api"

_T = TypeVar("_T")


class ApiServer:
    """The server, and what its UI has read."""

    def __init__(self, app: FastAPI, tables: AirflowTables, sources: Sources) -> None:
        self.app = app
        self.tables = tables
        self.sources = sources

    def client(self, user: str = "", role: str = "USER", **more: Any) -> AsyncClient:
        """Return a client with the token of a user; without any if there is no name. ``more`` is of the user."""
        headers = {}
        if user:
            known = SimpleAuthManagerUser(username=user, role=role, **more)
            token = airflow_app.get_auth_manager().generate_jwt(known)
            headers = {"authorization": f"Bearer {token}"}
        return AsyncClient(transport=ASGITransport(self.app), base_url="http://airflow", headers=headers)

    def show(self, inventory: Inventory, *, local: bool = False) -> None:
        """Make an inventory what the UI has read of Modal."""
        state = LiveState.of(inventory, (), local=local, app="modalflow", environment="main")
        self.sources.live = read(Cached("live", lambda: state, 3600.0))

    def play(self, calls: list[RecordedCall]) -> None:
        """Make these the calls of every task instance and run."""
        sources: Any = self.sources
        sources._recorded, sources._volume = _Played(calls), lambda: None


class _Played:
    """Calls instead of those on a logs Volume."""

    def __init__(self, calls: list[RecordedCall]) -> None:
        self._calls = calls

    def of_run(self, *_: object) -> list[RecordedCall]:
        return self._calls

    of_instance = of_run


def read(cached: Cached[_T]) -> Cached[_T]:
    """Return a cache after its first read."""
    wait_until(lambda: cached.seen().value is not None, what="the first read")
    return cached


def unreachable() -> Site:
    """Raise as ``open_site`` does without a control plane."""
    raise ControlPlaneUnreachableError("Modal at http://127.0.0.1:9 does not answer (refused).")


@contextmanager
def api_server(
    folder: Path,
    sources: Sources | None = None,
    env: Mapping[str, str] | None = None,
    before_start: Callable[[AirflowTables], None] = lambda tables: None,
) -> Iterator[ApiServer]:
    """Airflow's API server with users of ``PerDagAuthManager``, and the DAGs ``losses`` and ``secret``.

    It cannot reach Modal unless its sources can. ``env`` has more variables, and ``before_start`` can write into the
    tables before the server reads them.
    """
    with airflow_tables(folder) as tables, pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "NonScopedSession", sessionmaker(settings.engine, expire_on_commit=False))
        tables.add_dag("secret")
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.unit.ui.per_dag_auth_manager.PerDagAuthManager")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(folder / "passwords.json"))
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "root:admin")
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        before_start(tables)
        sources = sources or Sources(unreachable)
        patch.setattr(airflow_plugin, "_created", lambda: create_app(sources))
        patch.setattr(airflow_plugin._UI["app"], "_app", None)
        airflow_app.purge_cached_app()
        try:
            yield ApiServer(airflow_app.create_app("core"), tables, sources)
        finally:
            airflow_app.purge_cached_app()
