"""The transport over a Modal Queue, without Modal."""

from __future__ import annotations

from unittest.mock import AsyncMock, create_autospec

import modal
import pytest

from modalflow.names import Names
from modalflow.relay.queue_transport import QueueToRelays


async def test_opening_early_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It only saves the first request an RPC: that one meets the error, and comes again."""
    queue = create_autospec(modal.Queue, instance=True)
    monkeypatch.setattr(modal.Queue, "from_name", lambda *_, **__: queue)
    transport = QueueToRelays(Names())
    queue.hydrate.aio = AsyncMock(side_effect=modal.exception.ConnectionError("no route"))
    await transport.open()
    assert queue.hydrate.aio.call_count == 1
