"""Modal's SDK below its public surface, for tests of what no public call shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import modal
import pytest
from google.protobuf.message import Message
from modal._utils.async_utils import synchronizer
from modal_proto import api_pb2

SDK = tuple(int(number) for number in modal.__version__.split(".")[:3])


def needs_sdk(version: str) -> pytest.MarkDecorator:
    """Skip a test of what the SDK has only since a version, e.g. ``@needs_sdk("1.6")``."""
    wanted = tuple(int(number) for number in version.split("."))
    return pytest.mark.skipif(wanted > SDK, reason=f"the SDK has it since {version}; this is {modal.__version__}")


def stub(client: modal.Client) -> Any:
    """The object whose methods are Modal's RPCs; before 1.6 it was public."""
    return getattr(client, "_stub", None) or getattr(client, "stub")  # noqa: B009 (there only before 1.6)


def rpc(client: modal.Client, name: str, request: Message) -> Any:
    """Send one RPC as the SDK sends it and return the answer."""

    async def send() -> Any:
        return await getattr(stub(client), name)(request)

    # Connections belong to the SDK's own event loop.
    return synchronizer.create_blocking(send)()


def stream(client: modal.Client, name: str, request: Message) -> list[Any]:
    """Send one RPC whose answer is a stream and return all of that."""

    async def send() -> list[Any]:
        return [answer async for answer in getattr(stub(client), name).unary_stream(request)]

    answers: list[Any] = synchronizer.create_blocking(send)()
    return answers


def client_of(url: str, env: Mapping[str, str]) -> modal.Client:
    """A client, not opened yet, of the control plane at ``url``, with the credentials in the variables ``env``."""
    return modal.Client(url, api_pb2.CLIENT_TYPE_CLIENT, (env["MODAL_TOKEN_ID"], env["MODAL_TOKEN_SECRET"]))
