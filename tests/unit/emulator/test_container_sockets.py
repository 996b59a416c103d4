"""A container is identified by the socket that it calls through."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from modalflow.emulator.rpc.container_sockets import LONGEST_PATH, Connection, ContainerSockets
from modalflow.emulator.rpc.credentials import Credentials
from modalflow.emulator.state.state_dir import StateDir

TOKEN = {"x-modal-token-id": "ak-right", "x-modal-token-secret": "as-right"}


async def connect(path: Path) -> None:
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.close()
    await writer.wait_closed()


async def test_the_caller_behind_a_socket_is_its_container(tmp_path: Path) -> None:
    """Each container has a socket of its own. Once it is closed, no connection is accepted."""
    sockets = ContainerSockets(StateDir(tmp_path))
    sockets.serve(Connection)
    credentials = Credentials("ak-right", "as-right", sockets)
    first, second = await sockets.open("ta-first"), await sockets.open("ta-second")
    try:
        await connect(first)
        assert credentials.check({}, str(first)) == "ta-first"
        assert credentials.check({}, str(second)) == "ta-second"
        sockets.close_socket("ta-first")
        with pytest.raises(OSError):
            await connect(first)
        with pytest.raises(GRPCError) as refused:
            credentials.check({}, str(first))
        assert refused.value.status is Status.UNAUTHENTICATED
    finally:
        sockets.close()
    assert not second.exists()


async def test_a_token_that_is_sent_through_a_socket_is_checked(tmp_path: Path) -> None:
    """User code in a container may be a client by its token; a wrong token is refused although the socket is right."""
    sockets = ContainerSockets(StateDir(tmp_path))
    sockets.serve(Connection)
    credentials = Credentials("ak-right", "as-right", sockets)
    path = str(await sockets.open("ta-first"))
    try:
        assert credentials.check(TOKEN, path) is None
        with pytest.raises(GRPCError, match="Token missing or invalid"):
            credentials.check({**TOKEN, "x-modal-token-secret": "guess"}, path)
    finally:
        sockets.close()


@pytest.mark.parametrize("temporary", ["", "deep" * 30])
async def test_sockets_of_a_deep_state_folder_have_short_paths(
    temporary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path is too long for a unix socket, whichever folders for state and temporary files the user chose."""
    if temporary:
        (tmp_path / temporary).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    sockets = ContainerSockets(StateDir(tmp_path / ("deep" * 30)))
    sockets.serve(Connection)
    try:
        path = await sockets.open("ta-first")
        assert len(str(path)) <= LONGEST_PATH
        await connect(path)
    finally:
        sockets.close()
    assert not path.parent.exists()
