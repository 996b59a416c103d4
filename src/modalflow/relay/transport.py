"""The interface of a transport: how items get from containers to relays and back.

There are two: Modal Queues (``queue_transport``), and tunnels (``container.tunnel_to_relays``,
``host.tunnels_to_containers``), which use the first one for whatever has no connection.

A transport may lose, double, delay and reorder items: requests are sent again, and repeated ones recognised, above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class ContainerTransport(Protocol):
    """The container's side."""

    async def send(self, item: bytes, parts: Sequence[bytes] = (), *, place: str = "") -> None:
        """Send an item to any relay. ``parts`` are further items at ``place``, for the relay with the first one alone.
        Raises an exception if it is not sent."""

    async def receive(self, session: str, wait: float) -> Sequence[object]:
        """Return items for a session; empty if there are none within ``wait`` seconds."""


class RelayTransport(Protocol):
    """The relay's side."""

    async def receive(self, most: int, wait: float) -> Sequence[object]:
        """Return items of any containers, each to one relay alone; empty if there are none within ``wait`` seconds."""

    async def parts(self, place: str, most: int, wait: float) -> Sequence[object]:
        """Return further items of one message."""

    async def send(self, session: str, items: Iterable[bytes]) -> None:
        """Send items to a session, each made at its turn. Raises an exception if they are not sent."""
