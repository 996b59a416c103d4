"""The inputs that wait for one function, and the containers that run them.

Owns the state of one function's containers: how many are missing, and what failed starts mean. ``pools`` starts and
ends containers, and decides between functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Set

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import results
from modalflow.emulator.containers.container import Container, State, inputs_at_once
from modalflow.emulator.containers.launch import hints
from modalflow.emulator.functions.function import Function, Scaling
from modalflow.support.backoff import Backoff

log = logging.getLogger(__name__)

#: Consecutive containers that may end before they ask for an input; then the waiting inputs fail. Modal gives no number
#: for ephemeral apps, and never stops for deployed ones (its guide, "Failures and retries").
START_TRIES = 3

#: The pauses between failed starts.
START_BACKOFF = Backoff(0.25, 30.0)


class Pool:
    """The inputs that wait for one function, or variant of one, and its containers."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.pending: deque[Input] = deque()
        self.containers: dict[str, Container] = {}
        self.askers: dict[str, Container] = {}
        """Containers that asked for inputs; the request may have been answered already."""
        self.failed_starts = 0
        self.last_failed_start = 0.0
        self.start_not_before = 0.0
        self.retry_start: asyncio.TimerHandle | None = None

    @property
    def current(self) -> list[Container]:
        """Return the containers that accept inputs: those of the current revision."""
        return [c for c in self.containers.values() if c.is_current and not c.retiring]

    def asking(self) -> Container | None:
        """Return the container for the next input: the one used last, so that the others become idle and end."""
        for container in [c for c in self.askers.values() if not c.is_asking]:
            del self.askers[container.container_id]
        found = [c for c in self.askers.values() if c.free and c.is_current]
        return max(found, key=lambda c: c.idle_since, default=None)

    def missing(self, scaling: Scaling) -> int:
        """Return how many containers are missing, by the waiting inputs and the function's autoscaler settings."""
        missing = max(self._shortage(), scaling.min_containers - len(self.current))
        if scaling.buffer_containers and self.is_active:
            # The buffer is kept while the function is active (Modal's guide, "Scaling out").
            idle = sum(not c.inputs for c in self.current)
            missing = max(missing, self._shortage() + max(scaling.buffer_containers - idle, 0))
        if scaling.max_containers:
            missing = min(missing, scaling.max_containers - len(self.current))
        return missing

    def _shortage(self) -> int:
        """Return how many containers the waiting inputs need beyond the free places of the present ones."""
        missing = len(self.pending) - sum(c.free for c in self.current)
        if missing <= 0:
            return 0
        return -(-missing // inputs_at_once(self.function.spec))

    def idle_too_long(self, scaling: Scaling, now: float) -> list[Container]:
        """Return the containers to retire: idle for longer than the window, and not required by a setting."""
        spare = len(self.current) - scaling.min_containers
        idle = [c for c in self.current if c.state is State.READY and not c.inputs]
        if scaling.buffer_containers and self.is_active:
            spare = min(spare, len(idle) - scaling.buffer_containers)
        due = [c for c in idle if now - c.idle_since > scaling.scaledown_window]
        return sorted(due, key=lambda c: c.idle_since)[: max(spare, 0)]

    def withdraw(self, items: Set[Input]) -> None:
        """Remove inputs from the queue, in one pass."""
        if len(items) == 1:
            with contextlib.suppress(ValueError):
                self.pending.remove(*items)
        else:
            self.pending = deque(item for item in self.pending if item not in items)

    def fail_pending(self, result: api_pb2.GenericResult) -> None:
        """Resolve every waiting input with a result."""
        failed, self.pending = self.pending, deque()
        for item in failed:
            item.call.resolve(item, result)

    def start_failed(self, container: Container, ending: str) -> None:
        """Count a container that ended before it asked for an input; after ``START_TRIES`` of them, fail the inputs."""
        log.warning("container %s %s before it took an input", container.container_id, ending)
        if container.enqueued_at < self.last_failed_start:
            # It was started together with one that failed: that counts as one failure.
            return
        self.last_failed_start = clock.now()
        self.failed_starts += 1
        self.start_not_before = time.monotonic() + START_BACKOFF.after(self.failed_starts)
        if self.failed_starts >= START_TRIES and self.pending:
            # Later inputs get their own tries; min_containers alone continues with a growing pause.
            result = container.start_failure or hints.explained(
                results.failed_to_start(container.container_id, ending, container.last_words, self.failed_starts),
                container.missing,
            )
            self.forget_failed_starts()
            self.fail_pending(result)

    def forget_failed_starts(self) -> None:
        """Allow a start at once, as if none had failed."""
        self.failed_starts, self.start_not_before = 0, 0.0

    @property
    def is_active(self) -> bool:
        """Return whether inputs wait or run."""
        return bool(self.pending) or any(c.inputs for c in self.containers.values())
