"""Periodic work: it ends idle and silent containers, stops abandoned apps and forgets old data.

Owns the schedule of these policies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from modalflow.emulator.apps.app_lifecycle import AppLifecycle
from modalflow.emulator.calls.calls import Calls
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.volumes.volumes import Volumes

log = logging.getLogger(__name__)

TICK = 0.5

#: A container that sent no heartbeat for this long hangs, or its process was stopped. The runtime sends one every 15
#: seconds (``heartbeat_interval`` in modal/config.py); Modal's limit is inferred.
SILENT_AFTER = 120.0

#: By default the timeout of a function is its startup timeout too, and may be one second. On a laptop under load, the
#: start of a process takes longer than that.
SHORTEST_STARTUP_TIMEOUT = 30.0

#: Ticks between two rounds of forgetting.
FORGET_EVERY = 600


class Housekeeping:
    """Runs the periodic work until it is cancelled."""

    def __init__(
        self,
        apps: AppLifecycle,
        calls: Calls,
        containers: Containers,
        pools: Pools,
        logs: Logs,
        blobs: Blobs,
        volumes: Volumes,
    ) -> None:
        self._apps, self._calls, self._containers, self._pools = apps, calls, containers, pools
        self._logs, self._blobs, self._volumes = logs, blobs, volumes

    async def run(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            ticks += 1
            self.tick(time.monotonic(), forget=ticks % FORGET_EVERY == 0)

    def tick(self, now: float, *, forget: bool = False) -> None:
        tasks: list[Callable[[], object]] = [
            self._apps.stop_abandoned,
            self._apps.stop_finished,
            *(partial(self._check, container, now) for container in self._containers),
            partial(self._pools.scale_down, now),
            self._pools.placement.log_waits,
        ]
        if forget:
            tasks += [
                self._calls.forget_expired,
                self._apps.forget_stopped,
                self._logs.forget_old,
                partial(self._blobs.remove_unused, self._calls.blobs),
                self._volumes.remove_unused,
            ]
        for task in tasks:
            try:
                task()
            except Exception:
                # A loop's boundary: one task that fails each time must not keep containers from ending.
                log.exception("Periodic work failed at %s", task)

    @staticmethod
    def _check(container: Container, now: float) -> None:
        if container.process is None:
            return
        silent = now - container.last_heard
        startup = max(container.spec.startup_timeout_secs, SHORTEST_STARTUP_TIMEOUT)
        if container.state is State.STARTING and silent > startup:
            container.stderr_tail.append(f"(it took longer than its startup timeout of {startup:g} s)\n")
            container.process.kill()
        elif container.state is State.READY and silent > SILENT_AFTER:
            log.warning("Container %s sent no heartbeat for %.0f s and is killed", container.container_id, silent)
            container.process.kill()
