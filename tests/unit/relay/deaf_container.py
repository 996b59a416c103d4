"""A container whose tunnel is open, and that reads nothing from it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from modalflow.relay.encryption import Session
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.messages import Direction, Header
from modalflow.relay.tunnel import Wire
from tests.unit.relay.conversation import key_pair
from tests.unit.relay.memory_transport import MemoryTransport


@dataclass(frozen=True)
class DeafContainer:
    """The relay's side of its tunnel, and what came over the other transport instead."""

    session: str
    tunnels: TunnelsToContainers
    memory: MemoryTransport


@asynccontextmanager
async def deaf_container() -> AsyncIterator[DeafContainer]:
    """Connect a relay's tunnels to one."""
    session, memory = Session(key_pair().public), MemoryTransport()
    tunnels = TunnelsToContainers("r", memory.to_containers(), local=True)

    async def container(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        Wire(reader, writer).write(os.urandom(32))
        await reader.read(100)
        await asyncio.sleep(60)

    server = await asyncio.start_server(container, "127.0.0.1", 0)
    header = Header(Direction.REQUEST, session.key_id, session.name, "1", 1, 1.0)
    address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert (await tunnels.connect(header, session.keys, address)).status == 204
    yield DeafContainer(session.name, tunnels, memory)
    server.close()
    await tunnels.end()
