"""The process that containers are forked from, when it cannot be what it should be."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation, Rootfs
from modalflow.emulator.processes.fork_server import ForkServer, TemplateError


@pytest.mark.parametrize(("module", "said"), [("import os; os._exit(3)", "every container"), ("1/0", "one by one")])
async def test_a_runtime_that_cannot_be_imported(
    tmp_path: Path, module: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the import fails, or takes the process with it, containers are new interpreters."""
    (tmp_path / "modal.py").write_text(module)
    server = ForkServer({"PATH": os.defpath, "PYTHONPATH": str(tmp_path)}, isolation=Isolation.PLAIN)
    with caplog.at_level(logging.WARNING):
        server.start()
        try:
            async with asyncio.timeout(30):
                while said not in caplog.text:
                    await asyncio.sleep(0.02)
                assert await server.isolation() is Isolation.PLAIN
        finally:
            server.close()


async def test_a_room_that_cannot_be_made(tmp_path: Path) -> None:
    """The container ends at once and says why; the next one is started as ever."""
    server = ForkServer({"PATH": os.defpath}, isolation=Isolation.PLAIN, preload=False)
    server.start()
    said: list[str] = []
    try:
        for _ in range(2):
            rootfs = Rootfs(tmp_path / "a-file", tmp_path / "layer", hidden=tmp_path)
            (tmp_path / "a-file").touch()
            process = await server.launch(ContainerSpec(rootfs, {}), said.append, said.append)
            async with asyncio.timeout(30):
                assert await process.wait() == 126
        assert "could not be made" in said[0]
        assert len(said) == 2
    finally:
        server.close()
    with pytest.raises(TemplateError):
        await server.launch(ContainerSpec(rootfs, {}), said.append, said.append)
