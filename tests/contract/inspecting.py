"""Looking at containers as ``modal container list`` does, without the table."""

from __future__ import annotations

from typing import Any

import modal
from modal._utils.async_utils import synchronizer
from modal_proto import api_pb2


def containers(client: modal.Client, app_name: str | None = None) -> list[str]:
    """Return the ids of the containers that run, of one app or of all."""

    async def ask() -> list[str]:
        stub: Any = synchronizer._translate_in(client)
        listed = await stub._stub.TaskList(api_pb2.TaskListRequest())
        return [t.task_id for t in listed.tasks if app_name in (None, t.app_description)]

    blocking: Any = synchronizer.create_blocking(ask)
    found: list[str] = blocking()
    return found
