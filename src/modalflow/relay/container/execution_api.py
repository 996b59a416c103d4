"""The way from a container to Airflow's Execution API over relays: a loopback server for each relay key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from modalflow.names import Names

if TYPE_CHECKING:
    from modalflow.relay.container.loopback_server import LoopbackServer

log = logging.getLogger(__name__)


class TaskLog(Protocol):
    """The log of a workload."""

    def warning(self, event: str) -> None: ...


class ExecutionApi:
    """The loopback servers of one container, for its whole life."""

    def __init__(self, names: Names, container_id: str) -> None:
        self._names = names
        self._container_id = container_id
        self._servers: dict[tuple[str, bool], LoopbackServer] = {}
        self._background: list[asyncio.Task[None]] = []
        self._waiting: list[TaskLog] = []

    async def url(self, relay: str, *, tunnel: bool = False) -> str:
        """Return the URL for requests to relays with this key, as ``Submission.relay`` names it.

        ``tunnel``: requests travel through a tunnel if there can be one.

        Raises MalformedMessageError if it names none.
        """
        server = self._servers.get((relay, tunnel))
        if server is None:
            # Imported by the first task over a relay.
            from modalflow.relay.container.loopback_server import LoopbackServer
            from modalflow.relay.container.relay_client import RelayClient
            from modalflow.relay.container.tunnel_to_relays import TunnelToRelays
            from modalflow.relay.encryption import PublicKey, Session
            from modalflow.relay.queue_transport import QueueToRelays

            session = Session(PublicKey.read(relay))
            queue = QueueToRelays(self._names)
            # While the task's process starts.
            self._background.append(asyncio.create_task(queue.open()))
            tunnelled = TunnelToRelays(queue, session) if tunnel else None
            client = RelayClient(tunnelled or queue, session, self._container_id, self._note)
            server = self._servers[relay, tunnel] = LoopbackServer(client)
            if tunnelled is not None:
                # Together with the first requests of the task.
                tunnelled.want()
                self._background.append(asyncio.create_task(tunnelled.run(client.ask)))
            await server.start()
        await server.listening()
        return server.url

    @contextmanager
    def noting(self, task_log: TaskLog) -> Iterator[None]:
        """Write waits for a relay into a log, within the context."""
        self._waiting.append(task_log)
        try:
            yield
        finally:
            self._waiting.remove(task_log)

    def _note(self, text: str) -> None:
        log.warning("%s", text)
        for task_log in self._waiting:
            task_log.warning(text)
