"""Who may call: clients with the token, containers through their own sockets.

Owns the check. Which container is behind which socket, ContainerSockets knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from grpclib import GRPCError, Status

from modalflow.emulator.rpc.container_sockets import ContainerSockets


class Credentials:
    """The token of clients, and the sockets of containers."""

    def __init__(self, token_id: str, token_secret: str, sockets: ContainerSockets) -> None:
        self.token_id = token_id
        self.token_secret = token_secret
        self._sockets = sockets

    def __repr__(self) -> str:
        return f"Credentials(token_id={self.token_id!r})"

    def check(self, metadata: Mapping[str, Any], socket_path: str | None) -> str | None:
        """Return the id of the calling container, None for a client; raise UNAUTHENTICATED for anyone else.

        ``socket_path`` is the unix socket that the call came through, None if it came over the network. A token that
        is sent through a socket makes a client of the caller: user code may be one (``Client.from_credentials``).
        """
        if socket_path is not None and "x-modal-token-id" not in metadata:
            container_id = self._sockets.container_behind(socket_path)
            if container_id is None:
                raise GRPCError(Status.UNAUTHENTICATED, "This container has ended")
            return container_id
        if _same(metadata.get("x-modal-token-id"), self.token_id) and _same(
            metadata.get("x-modal-token-secret"), self.token_secret
        ):
            return None
        raise GRPCError(Status.UNAUTHENTICATED, "Token missing or invalid")


def _same(given: Any, expected: str) -> bool:
    return hmac.compare_digest(str(given or "").encode(), expected.encode())
