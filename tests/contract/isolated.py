"""A control plane on a thread of the test's process, with containers of a given kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation


def problem_with(isolation: Isolation) -> str:
    """Why this machine does not allow that kind of isolation, tried in a process without threads."""
    script = (
        "import sys; from modalflow.emulator.processes import template; "
        "from modalflow.emulator.processes.container_spec import Isolation; "
        "print(template.problem_with(Isolation(sys.argv[1])))"
    )
    tried = subprocess.run(
        [sys.executable, "-c", script, isolation.value], check=True, stdout=subprocess.PIPE, text=True
    )
    return tried.stdout.strip()


@contextmanager
def running(isolation: Isolation, state_dir: Path | None = None, **options: Any) -> Iterator[ControlPlane]:
    """A control plane on a thread of this process, with containers of that kind."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="control plane under test")
    thread.start()

    async def make() -> ControlPlane:
        control_plane = ControlPlane(Options(state_dir=state_dir, **options), isolation=isolation)
        await control_plane.start()
        return control_plane

    try:
        control_plane = asyncio.run_coroutine_threadsafe(make(), loop).result(30)
        try:
            yield control_plane
        finally:
            asyncio.run_coroutine_threadsafe(control_plane.close(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
