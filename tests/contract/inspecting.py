"""Looking at containers, and stopping them, as ``modal container`` does without its tables and questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import modal
from modal._utils.async_utils import synchronizer
from modal_proto import api_pb2

T = TypeVar("T")


def containers(client: modal.Client, app_name: str | None = None) -> list[str]:
    """Return the ids of the containers that run, of one app or of all."""

    async def ask(stub: Any) -> list[str]:
        listed = await stub.TaskList(api_pb2.TaskListRequest())
        return [t.task_id for t in listed.tasks if app_name in (None, t.app_description)]

    return with_stub(client, ask)


def stop_container(client: modal.Client, container_id: str) -> None:
    """End a container; what it runs goes to another one."""

    async def ask(stub: Any) -> None:
        await stub.ContainerStop(api_pb2.ContainerStopRequest(task_id=container_id))

    with_stub(client, ask)


def with_stub(client: modal.Client, ask: Callable[[Any], Awaitable[T]]) -> T:
    """Call RPCs for which the SDK has no method, over the client's own connection."""
    translate: Any = synchronizer._translate_in

    async def run() -> T:
        return await ask(translate(client)._stub)

    blocking: Any = synchronizer.create_blocking(run)
    answer: T = blocking()
    return answer
