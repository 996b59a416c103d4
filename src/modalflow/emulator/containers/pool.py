"""The inputs that wait for one function, and the containers that run them.

Owns what is there, and what is missing. What to do about it is pools.py's.
"""

from __future__ import annotations

import asyncio
from collections import deque

from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers.container import Container, inputs_at_once
from modalflow.emulator.functions.function import Function


class Pool:
    """The inputs that wait for one function, or variant of one, and its containers."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.pending: deque[Input] = deque()
        self.containers: dict[str, Container] = {}
        self.askers: dict[str, Container] = {}
        """Those that asked for inputs; what they asked may be answered already."""
        self.failed_starts = 0
        self.last_failed_start = 0.0
        self.start_not_before = 0.0
        self.retry_start: asyncio.TimerHandle | None = None

    @property
    def current(self) -> list[Container]:
        """The containers that take inputs: those of the current revision."""
        return [c for c in self.containers.values() if c.is_current and not c.retiring]

    def asking(self) -> Container | None:
        """The container to give an input to: the one used last, so that the others can be idle and end."""
        for container in [c for c in self.askers.values() if not c.is_asking]:
            del self.askers[container.container_id]
        found = [c for c in self.askers.values() if c.free and c.is_current]
        return max(found, key=lambda c: c.idle_since, default=None)

    def shortage(self) -> int:
        """How many containers are missing for all that waits. One that has room will ask, or is about to."""
        missing = len(self.pending) - sum(c.free for c in self.current)
        if missing <= 0:
            return 0
        return -(-missing // inputs_at_once(self.function.spec))

    def buffer_shortage(self, buffer_containers: int) -> int:
        """How many containers are missing for all that waits and that many more without anything to do.

        The buffer is kept while the function has something to do (Modal's guide, "Scaling out").
        """
        if not self.is_active:
            return 0
        return self.shortage() + max(buffer_containers - sum(not c.inputs for c in self.current), 0)

    @property
    def is_active(self) -> bool:
        return bool(self.pending) or any(c.inputs for c in self.containers.values())
