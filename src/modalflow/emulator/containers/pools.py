"""The pools of all functions: assign inputs to containers; start, retire and replace containers.

Owns scaling and the order between functions. Callers report all events; this module makes no RPC. ``pool`` has the
state of one function, ``outcomes`` the effect of a container's end on its inputs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import results
from modalflow.emulator.containers.capacity import Need
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.outcomes import Outcomes
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pool import Pool
from modalflow.emulator.functions.function import Function, Scaling
from modalflow.emulator.rpc.failures import described

log = logging.getLogger(__name__)

#: Containers that start at the same time. A start takes processor time: more at once would all be later, and a short
#: input may be done by another container in the meantime.
STARTING_AT_ONCE = max(20, 8 * (os.cpu_count() or 1))

#: Seconds for a container to exit after it or its app was stopped: the time that exit handlers have (Modal's guide,
#: "Container lifecycle hooks").
STOP_GRACE = 30.0


class ContainerRunner(Protocol):
    """Runs containers, and is notified of their events."""

    async def run(self, container: Container) -> int:
        """Run a container to its end and return its exit code."""
        ...

    def on_ready(self, container: Container) -> None:
        """Handle a container's first request for an input."""

    def on_input(self, container: Container) -> None:
        """Handle the delivery of inputs to a container."""


class Pools:
    """All pools of a control plane. Its methods are called on the event loop and do not block."""

    def __init__(
        self,
        containers: Containers,
        placement: Placement,
        runner: ContainerRunner,
        *,
        scaledown_window: float,
    ) -> None:
        self._containers, self.placement, self._runner = containers, placement, runner
        self._scaledown_window = scaledown_window
        self._pools: dict[str, Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.outcomes = Outcomes(self.submit, self._requeue)

    # Lookups

    def pool(self, function: Function) -> Pool:
        pool = self._pools.get(function.object_id)
        if pool is None:
            pool = self._pools[function.object_id] = Pool(function)
        return pool

    def container(self, container_id: str | None) -> Container | None:
        return self._containers.find(container_id)

    def running(self, function: Function) -> Iterator[Input]:
        """Return the inputs of the function that are in containers."""
        pool = self._pools.get(function.object_id)
        return (item for c in pool.containers.values() for item in c.inputs.values()) if pool else iter(())

    def live(self) -> list[Container]:
        return list(self._containers)

    def scaling(self, function: Function) -> Scaling:
        return function.scaling(self._scaledown_window)

    # Requests

    def submit(self, *items: Input) -> None:
        """Run the inputs, all of one function, as soon as possible."""
        if runnable := [item for item in items if self._can_run(item)]:
            pool = self.pool(runnable[0].call.function)
            pool.pending.extend(runnable)
            self._match(pool)

    def resume(self, items: Iterable[Input]) -> None:
        """Run the unfinished inputs of an earlier control plane, in their order.

        An input that was running runs again as after a preemption, without using up a try.
        """
        pools: dict[str, Pool] = {}
        for item in items:
            if self._can_run(item):
                pool = pools[item.call.function.object_id] = self.pool(item.call.function)
                pool.pending.append(item)
        for pool in pools.values():
            self._match(pool)

    def _requeue(self, item: Input) -> None:
        """Put an input back at the head of the queue, without counting a try."""
        if self._can_run(item):
            pool = self.pool(item.call.function)
            pool.pending.appendleft(item)
            self._match(pool)

    def _can_run(self, item: Input) -> bool:
        if item.done:
            return False
        if item.ending is not None:
            self.outcomes.settle(item, item.ending)
        elif reason := item.call.function.callable_reason:
            item.call.resolve(item, results.terminated(reason))
        return not item.done and item.ending is None

    def cancel(self, items: Iterable[Input], *, terminate_containers: bool) -> None:
        """End inputs as TERMINATED: waiting ones now, running ones when their container reports it or is killed."""
        waiting: dict[Input, api_pb2.GenericResult] = {}
        for item in items:
            if item.done:
                continue
            ending = item.ending = item.ending or results.terminated(f"Input {item.input_id} was cancelled by a user")
            container = self._containers.find(item.container_id)
            if container is not None and item.input_id in container.inputs:
                self.outcomes.cancel(container, item, terminate_container=terminate_containers)
            else:
                waiting[item] = ending
        by_pool: dict[Pool, set[Input]] = {}
        for item in waiting:
            by_pool.setdefault(self.pool(item.call.function), set()).add(item)
        for pool, items_of_pool in by_pool.items():
            pool.withdraw(items_of_pool)
            self._hand_out(pool)  # If nothing is left, this gives up its place in the queue for capacity.
        for item, ending in waiting.items():
            item.call.resolve(item, ending)
        for pool in by_pool:
            self._match_others(pool)

    def published(self, function: Function) -> None:
        """Handle a changed definition: containers of the old one finish their inputs and end."""
        pool = self.pool(function)
        pool.forget_failed_starts()
        for container in list(pool.containers.values()):
            if function.callable_reason or not container.is_current:
                self._retire(container)
        if function.callable_reason:
            pool.fail_pending(results.terminated(function.callable_reason))
        self._match(pool)

    def rescale(self, function: Function) -> None:
        """Handle changed autoscaler settings."""
        self._match(self.pool(function))

    def stop_app(self, app: App, reason: str) -> None:
        for pool in [p for p in self._pools.values() if p.function.app is app]:
            pool.fail_pending(results.terminated(reason))
            # Otherwise its place in the queue for capacity would never be given up.
            self.placement.end_wait(pool.function)
            for container in list(pool.containers.values()):
                for item in container.inputs.values():
                    item.ending = item.ending or results.terminated(reason)
                container.stop(reason, STOP_GRACE)

    def forget_app(self, app: App) -> None:
        """Forget an app that was stopped long ago."""
        self._pools = {i: pool for i, pool in self._pools.items() if pool.function.app is not app}

    def stop_container(self, container: Container, *, graceful: bool) -> None:
        """Stop as ``modal container stop`` does: other containers run its inputs, unless it may finish them."""
        if graceful:
            self._retire(container)
        else:
            container.stop("a user stopped the container", STOP_GRACE)

    def scale_down(self, now: float) -> None:
        """Retire containers that were idle too long, and start those that autoscaler settings require."""
        for pool in list(self._pools.values()):
            scaling = self.scaling(pool.function)
            for container in pool.idle_too_long(scaling, now):
                container.retire()
            if len(pool.current) < scaling.min_containers or scaling.buffer_containers:
                self._scale(pool)

    # Reports of containers

    def asked(self, container: Container) -> None:
        """Handle a container's request for inputs."""
        is_new = container.state is State.STARTING
        if is_new:
            container.state = State.READY
            container.started_at = clock.now()
            container.idle_since = time.monotonic()
            self._runner.on_ready(container)
        pool = self.pool(container.function)
        pool.askers[container.container_id] = container
        pool.failed_starts = 0
        if not container.is_current:
            self._retire(container)
        with self._pending_end(pool):
            self._hand_out(pool)
            if is_new or container.retiring or self.scaling(pool.function).buffer_containers:
                # Otherwise no container is missing: the free places of an asking one were counted before.
                self._scale(pool)
        if is_new:
            self._match_others(pool)

    def returned(self, container: Container, items: Iterable[Input]) -> None:
        """Requeue inputs not received by a container, because the answer was lost."""
        for item in items:
            if container.inputs.get(item.input_id) is item:
                self.outcomes.remove(container, item)
                self._requeue(item)

    def put(self, container: Container, item: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        """Handle the result of an input."""
        log.debug("container %s is done with %s", container.container_id, item.input_id)
        self.outcomes.remove(container, item)
        self.outcomes.settle(item, result, data_format)
        if container.retiring:
            container.retire()
        pool = self.pool(container.function)
        with self._pending_end(pool):
            # A free place has been added, so no further container is missing.
            self._hand_out(pool)
        if not container.inputs and self.placement.has_waits:
            # At capacity, another function may need its place more.
            self._match_others(pool)

    def take_more(self, container: Container, size: int) -> list[Input]:
        """Return up to ``size`` further inputs for a lingering batch, without waiting."""
        return self._assign(container, min(size, len(self.pool(container.function).pending)))

    # Matching, starting and ending

    def _match(self, pool: Pool) -> None:
        with self._pending_end(pool):
            self._hand_out(pool)
            self._scale(pool)

    @contextlib.contextmanager
    def _pending_end(self, pool: Pool) -> Iterator[None]:
        """Fail the waiting inputs if the block raises."""
        try:
            yield
        except Exception as error:
            # A boundary: no caller handles the inputs that wait here, so they must end.
            log.exception("no container can be had for %s", pool.function.tag)
            pool.fail_pending(results.cannot_start(pool.function.tag, described(error)))

    def _hand_out(self, pool: Pool) -> None:
        """Assign waiting inputs to containers that ask for some."""
        while pool.pending and (container := pool.asking()) is not None:
            self._answer(container, pool)
        if not pool.pending:
            self.placement.end_wait(pool.function)

    def _answer(self, container: Container, pool: Pool) -> None:
        """Answer a container's request."""
        ask = container.next_ask()
        try:
            ask.answer.set_result(self._assign(container, min(ask.size, container.free, len(pool.pending))))
        except BaseException:
            # It would wait for its answer forever.
            ask.answer.cancel()
            raise

    def _match_others(self, pool: Pool) -> None:
        """Start containers of other functions, after capacity may have become free."""
        others = [other for other in self._pools.values() if other is not pool and other.pending]
        for other in sorted(others, key=lambda other: self.placement.waiting_since(other.function)):
            self._match(other)

    def _assign(self, container: Container, size: int) -> list[Input]:
        pool = self.pool(container.function)
        items = list(islice(pool.pending, size))
        # Removed from the queue afterwards: if anything raises before, they stay there.
        container.hold(items)
        for _ in items:
            pool.pending.popleft()
        log.debug("container %s runs %s", container.container_id, [item.input_id for item in items])
        if container.is_single_use:
            container.retiring = True
        for item in items:
            self.outcomes.start(container, item)
        self._runner.on_input(container)
        return items

    def _scale(self, pool: Pool) -> None:
        function = pool.function
        if self._closing or function.callable_reason or not function.current_revision:
            return
        wanted = pool.missing(self.scaling(function))
        if wanted <= 0:
            return
        wait = pool.start_not_before - time.monotonic()
        if wait > 0:
            if pool.retry_start is None:
                pool.retry_start = asyncio.get_running_loop().call_later(wait, self._scale_again, pool)
            return
        if reason := self.placement.impossible(function):
            pool.fail_pending(results.cannot_start(function.tag, reason))
            return
        for _ in range(wanted):
            if self._containers.starting >= STARTING_AT_ONCE:
                return
            need = self.placement.fitting(function)
            if need is None:
                if pool.pending:
                    for container in self.placement.blocking(function, self._containers):
                        self._retire(container)
                return
            self._start(Container(function), pool, need)

    def _scale_again(self, pool: Pool) -> None:
        pool.retry_start = None
        self._scale(pool)

    def _start(self, container: Container, pool: Pool, need: Need) -> None:
        self.placement.assign(container, need)
        pool.containers[container.container_id] = container
        self._containers.add(container)
        task = asyncio.get_running_loop().create_task(self._run(container, pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, container: Container, pool: Pool) -> None:
        try:
            returncode = await self._runner.run(container)
        except GeneratorExit:
            # The event loop was closed before the container ended: nothing waits, and nothing can be started.
            raise
        except BaseException as error:
            # The boundary of a task: its inputs must end after any error.
            log.exception("container %s could not be run", container.container_id)
            self._ended(container, pool, -1, f"could not be run ({described(error)})")
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            self._ended(container, pool, returncode, results.describe_ending(returncode))

    def _ended(self, container: Container, pool: Pool, returncode: int, ending: str) -> None:
        was_starting = container.state is State.STARTING
        container.state = State.ENDED
        container.finished_at = clock.now()
        container.release()
        pool.containers.pop(container.container_id, None)
        pool.askers.pop(container.container_id, None)
        self._containers.end(container)
        self.placement.release(container)
        for item in list(container.inputs.values()):
            self._lost(container, item, returncode, ending)
        if was_starting and not container.end_reason:
            container.start_failure = container.start_failure or container.death
            pool.start_failed(container, ending)
        self._match(pool)
        self._match_others(pool)

    def _lost(self, container: Container, item: Input, returncode: int, ending: str) -> None:
        try:
            self.outcomes.container_lost(container, item, returncode, ending)
        except Exception as error:
            # A boundary: this input and the container's other inputs must end.
            log.exception("the end of container %s was not handled for %s", container.container_id, item.input_id)
            if not item.done:
                reason = f"container {container.container_id} {ending}; the control plane failed: {described(error)}"
                item.call.resolve(item, results.crashed(reason, returncode))

    def _retire(self, container: Container) -> None:
        container.retire()
        if container.state is State.STARTING:
            container.kill("it is no longer needed")

    async def close(self, grace: float = 3.0) -> None:
        """End all containers and wait until they are gone."""
        self._closing = True
        for container in self.live():
            container.stop("the local control plane is stopping", grace)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self.outcomes.close()
