"""Memory limits: kill a container that exceeds the limit of its function, and report it.

Owns the measurement. A limit comes from ``memory=(request, limit)``; a request alone is no limit (the SDK's docstring
of ``App.function``). The memory of all the container's processes counts, with shared pages in proportion: a fork of the
template does not pay for the pages of all. In gVisor, the memory that the sandbox has given to them counts, and not its
own.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from modalflow.emulator.containers import results
from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.placement import FunctionLog
from modalflow.emulator.processes.sandboxes import gvisor
from modalflow.support.linux import family

log = logging.getLogger(__name__)

#: Seconds between two measurements of containers with a limit. A program can use some hundred MiB more meanwhile.
INTERVAL = 0.2

#: Seconds between two searches for such containers.
IDLE_INTERVAL = 0.5


class MemoryWatch:
    """The loop of measurements."""

    def __init__(self, containers: Containers, log: FunctionLog) -> None:
        self._containers, self._function_log = containers, log

    async def run(self) -> None:
        while True:
            watched = [c for c in self._containers if c.spec.resources.memory_mb_max and c.process is not None]
            for container in watched:
                try:
                    self.check(container)
                except Exception:
                    # A loop's boundary: the other containers have limits too.
                    log.exception("the memory of container %s could not be measured", container.container_id)
            await asyncio.sleep(INTERVAL if watched else IDLE_INTERVAL)

    def check(self, container: Container) -> None:
        """Kill the container if it is over its limit."""
        assert container.process is not None
        limit = container.spec.resources.memory_mb_max
        processes = family(container.process.pid)
        if container.is_in_gvisor:
            # The sandbox maps pages when a program touches them, and unmaps them as it likes.
            used = gvisor.memory_kib(processes) // 1024
        else:
            used = sum(map(proportional_kib, processes)) // 1024
        if used <= limit or container.death is not None:
            return
        container.death = results.out_of_memory(container.container_id, used, limit)
        self._function_log.note(container.function, container.death.exception)
        container.process.kill()


def proportional_kib(pid: int) -> int:
    """Return the process's proportional share of its memory, 0 if it has ended or is another user's."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0
