"""The way from this container to Airflow's Execution API, if it leads over a relay."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modalflow.names import APP_VARIABLE, DEFAULT_APP, Names
from modalflow.worker.hostname import container_id
from modalflow.worker.logs.log_files import CallLog

if TYPE_CHECKING:
    from modalflow.relay.container.loopback_server import LoopbackServer

log = logging.getLogger(__name__)


class ExecutionApi:
    """The loopback servers of this container: one for each relay key, as long as the container lives."""

    def __init__(self) -> None:
        self._servers: dict[str, LoopbackServer] = {}
        self._waiting: list[CallLog] = []

    async def url(self, relay: str) -> str:
        """Return the URL for requests to relays with this key, as ``Submission.relay`` names it."""
        server = self._servers.get(relay)
        if server is None:
            # Imported by the first task that needs it.
            from modalflow.relay.container.loopback_server import LoopbackServer
            from modalflow.relay.container.relay_client import RelayClient
            from modalflow.relay.encryption import PublicKey, Session
            from modalflow.relay.queue_transport import QueueToRelays

            transport = QueueToRelays(Names(os.environ.get(APP_VARIABLE, DEFAULT_APP)))
            client = RelayClient(transport, Session(PublicKey.read(relay)), container_id(), self._note)
            server = self._servers[relay] = LoopbackServer(client)
            await server.start()
        await server.listening()
        return server.url

    @contextmanager
    def noting(self, call_log: CallLog) -> Iterator[None]:
        """Write waits for a relay into a log, within the context."""
        self._waiting.append(call_log)
        try:
            yield
        finally:
            self._waiting.remove(call_log)

    def _note(self, text: str) -> None:
        log.warning("%s", text)
        for call_log in self._waiting:
            call_log.warning(text)
