"""A container is known by the socket that it comes through."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from modalflow.emulator.rpc.container_sockets import LONGEST_PATH, Doors
from modalflow.emulator.rpc.dispatcher import Credentials
from modalflow.emulator.state.store import StateDir

TOKEN = {"x-modal-token-id": "ak-right", "x-modal-token-secret": "as-right"}


async def knock(path: Path) -> None:
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.close()
    await writer.wait_closed()


async def test_who_comes_through_a_door_is_that_container(tmp_path: Path) -> None:
    """Each container has a door of its own, which nobody can come through once it is shut, not even with a connection
    from before."""
    doors = Doors(StateDir(tmp_path))
    doors.lead_to(asyncio.Protocol)
    credentials = Credentials("ak-right", "as-right", doors)
    first, second = await doors.open("ta-first"), await doors.open("ta-second")
    try:
        await knock(first)
        assert credentials.check({}, str(first)) == "ta-first"
        assert credentials.check({}, str(second)) == "ta-second"
        doors.shut("ta-first")
        with pytest.raises(OSError):
            await knock(first)
        with pytest.raises(GRPCError) as refused:
            credentials.check({}, str(first))
        assert refused.value.status is Status.UNAUTHENTICATED
    finally:
        doors.close()
    assert not second.exists()


async def test_a_token_that_is_sent_is_checked_at_a_door_too(tmp_path: Path) -> None:
    """User code in a container may be a client by its token; a wrong one is not made good by the door."""
    doors = Doors(StateDir(tmp_path))
    doors.lead_to(asyncio.Protocol)
    credentials = Credentials("ak-right", "as-right", doors)
    door = str(await doors.open("ta-first"))
    try:
        assert credentials.check(TOKEN, door) is None
        with pytest.raises(GRPCError, match="Token missing or invalid"):
            credentials.check({**TOKEN, "x-modal-token-secret": "guess"}, door)
    finally:
        doors.close()


@pytest.mark.parametrize("temporary", ["", "deep" * 30])
async def test_doors_of_a_deep_state_folder_are_elsewhere(
    temporary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is too long for a unix socket is not used, whatever state folder, and whatever folder for temporary
    files, the user chose."""
    if temporary:
        (tmp_path / temporary).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / temporary))
    doors = Doors(StateDir(tmp_path / ("deep" * 30)))
    doors.lead_to(asyncio.Protocol)
    try:
        path = await doors.open("ta-first")
        assert len(str(path)) <= LONGEST_PATH
        await knock(path)
    finally:
        doors.close()
    assert not path.parent.exists()
