"""Results after a week, as the SDK tells of them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import OutputExpiredError, RemoteError

from modalflow.emulator.calls.calls import RESULTS_KEPT
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.options import Options
from tests.sdk import client_of
from tests.support import Clock

TOKEN = {"MODAL_TOKEN_ID": "ak-test", "MODAL_TOKEN_SECRET": "as-test"}


@pytest.mark.parametrize("restart", [False, True], ids=["same control plane", "after a restart"])
async def test_a_result_expires(tmp_path: Path, restart: bool) -> None:
    """Within a week of its end a call tells how it ended; after that it is OutputExpiredError, after a restart too."""
    options = Options(
        state_dir=tmp_path / "state", token_id=TOKEN["MODAL_TOKEN_ID"], token_secret=TOKEN["MODAL_TOKEN_SECRET"]
    )
    plane = ControlPlane(options)
    await plane.start()
    client = await asyncio.to_thread(client_of(plane.url, TOKEN).__enter__)
    try:
        call = await asyncio.to_thread(_ended_call, client)
        if restart:
            await plane.close()
            plane = ControlPlane(dataclasses.replace(options, port=int(plane.url.rpartition(":")[2])))
            await plane.start()
        clock = Clock(time.time() + RESULTS_KEPT - 60)
        plane.parts.execution.calls._clock = clock
        with pytest.raises(RemoteError, match="cancelled"):
            await asyncio.to_thread(call.get, timeout=0)
        clock.now += 120
        with pytest.raises(OutputExpiredError):
            await asyncio.to_thread(call.get, timeout=0)
    finally:
        await asyncio.to_thread(client.__exit__, None, None, None)
        await plane.close()


def _ended_call(client: modal.Client) -> modal.FunctionCall[Any]:
    app = modal.App("expiring")
    function = app.function(serialized=True, name="nothing")(lambda: None)
    app.deploy(client=client)
    call = function.spawn()
    call.cancel()
    return call
