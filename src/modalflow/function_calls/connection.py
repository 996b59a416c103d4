"""The control plane for a DAG's calls: the credentials of an Airflow connection, a container's, or Modal's own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import modal

from modalflow.airflow_compat.configuration import modal_hook
from modalflow.airflow_compat.task_sdk.deferral import in_triggerers_thread
from modalflow.control_plane import ControlPlane, Hook, connect


def connected(conn_id: str | None, environment: str | None = None) -> ControlPlane:
    """Return the control plane of a connection, or without one, of this process. Blocks.

    Raises CredentialsError or ControlPlaneUnreachableError.
    """
    return _connected(conn_id or "", environment or "", modal_hook)


async def connected_in_triggerer(conn_id: str | None) -> ControlPlane:
    """Return the same in a triggerer, without blocking its event loop.

    Raises TimeoutError, too, if Airflow does not answer for the connection.
    """
    found: Any = None
    if conn_id:
        found = await in_triggerers_thread(lambda: _resolved(conn_id), f"connection {conn_id!r}")
    return await asyncio.to_thread(_connected, conn_id or "", "", lambda _: found)


def _resolved(conn_id: str) -> Any:
    hook = modal_hook(conn_id)
    # Both properties are cached. Airflow answers for the connection only there.
    _ = hook.credentials, hook.environment_name
    return hook


def _connected(conn_id: str, environment: str, hook: Hook) -> ControlPlane:
    if conn_id:
        return connect(conn_id=conn_id, environment=environment, hook=hook)
    if os.environ.get("MODAL_IS_REMOTE") == "1":
        # A task in a container on Modal has the identity of its container, and no token. Not modal.is_local(): the task
        # is a child process of the Function.
        return ControlPlane(modal.Client.from_env(), environment or None)
    return connect(environment=environment)
