"""The page about RPCs tells what is so."""

from __future__ import annotations

from pathlib import Path

import modal
import pytest
from google.protobuf.empty_pb2 import Empty
from modal.exception import UnimplementedError

from modalflow.emulator.coverage import current_page
from modalflow.emulator.rpc.handlers import rpc_table
from tests.sdk import needs_sdk, rpc

PAGE = Path(__file__).parents[2] / "docs" / "local-control-plane-rpcs.md"


@needs_sdk("1.6")
def test_the_page_is_up_to_date() -> None:
    """What is committed is what the code says, of every RPC of the SDK."""
    page = PAGE.read_text()
    assert page == current_page(modal.__version__), "run `make docs`"
    assert [name for name in rpc_table() if f"`{name}`" not in page] == []


@pytest.mark.local_only
def test_what_is_not_there_says_so(client: modal.Client) -> None:
    """An RPC that no service answers is UnimplementedError in the SDK, with its name."""
    with pytest.raises(UnimplementedError, match="ProxyList"):
        rpc(client, "ProxyList", Empty())
