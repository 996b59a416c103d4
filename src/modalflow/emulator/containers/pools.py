"""Which container runs which input: starting, reusing, retiring and replacing containers.

Owns scaling, in all that no RPC shows. It hears of everything from its callers and does no RPC of its own. What an end
means for an input is outcomes.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import hints, results
from modalflow.emulator.containers.capacity import Need
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.outcomes import Outcomes
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pool import Pool
from modalflow.emulator.functions.definitions import Function, Scaling
from modalflow.emulator.rpc.failures import described
from modalflow.support.backoff import Backoff

log = logging.getLogger(__name__)

#: Containers that end before they asked for an input, one after another, until the inputs that wait for one fail.
#: Modal names no number for ephemeral apps and goes on for ever for deployed ones (its guide, "Failures and retries").
START_TRIES = 3

#: Containers that start at the same time. Starting takes processor time and little else: more at once would all be
#: later, and a short input that a container has done meanwhile needs none.
STARTING_AT_ONCE = max(20, 8 * (os.cpu_count() or 1))

#: Seconds that a container has to start where the function says nothing of that. Its timeout counts for the start as
#: well then (Modal's guide, "Timeouts"), and may be a second.
SHORTEST_STARTUP_TIMEOUT = 30

#: The pauses before a start after failed ones.
START_BACKOFF = Backoff(0.25, 30.0)

#: Seconds that a container has to end on its own when its app is stopped, or it is: Modal's guide, "Container lifecycle
#: hooks", gives exit handlers that long.
STOP_GRACE = 30.0


class ContainerRunner(Protocol):
    """Runs containers, and is notified of what happens to them."""

    async def run(self, container: Container) -> int:
        """Run a container to its end and return its exit code."""
        ...

    def on_ready(self, container: Container) -> None:
        """The container has asked for an input for the first time."""

    def on_input(self, container: Container) -> None:
        """The container has got inputs."""


class Pools:
    """All pools of a control plane. Its methods are called on the event loop and do not block."""

    def __init__(
        self,
        containers: Containers,
        placing: Placement,
        runner: ContainerRunner,
        *,
        scaledown_window: float,
    ) -> None:
        self._containers, self.placing, self._runner = containers, placing, runner
        self._scaledown_window = scaledown_window
        self._pools: dict[str, Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self.outcomes = Outcomes(self.submit, self._requeue)

    # What others ask

    def pool(self, function: Function) -> Pool:
        pool = self._pools.get(function.object_id)
        if pool is None:
            pool = self._pools[function.object_id] = Pool(function)
        return pool

    def container(self, container_id: str | None) -> Container | None:
        return self._containers.find(container_id)

    def running(self, function: Function) -> Iterator[Input]:
        """The inputs of the function that containers have."""
        pool = self._pools.get(function.object_id)
        return (item for c in pool.containers.values() for item in c.inputs.values()) if pool else iter(())

    def live(self) -> list[Container]:
        return list(self._containers)

    def scaling(self, function: Function) -> Scaling:
        return function.scaling(self._scaledown_window)

    # What callers want

    def submit(self, *items: Input) -> None:
        """Run the inputs, all of one function, as soon as containers can."""
        if runnable := [item for item in items if self._can_run(item)]:
            pool = self.pool(runnable[0].call.function)
            pool.pending.extend(runnable)
            self._match(pool)

    def resume(self, items: Iterable[Input]) -> None:
        """Run what an earlier control plane left undone, in that order.

        What ran when that one ended runs again as after a preemption: the same input, and no try of its is used up.
        """
        pools: dict[str, Pool] = {}
        for item in items:
            if self._can_run(item):
                pool = pools[item.call.function.object_id] = self.pool(item.call.function)
                pool.pending.append(item)
        for pool in pools.values():
            self._match(pool)

    def _requeue(self, item: Input) -> None:
        """Put an input that is not to blame back where it was: first."""
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
        """End the inputs as TERMINATED: what waits at once, what runs when its container says so or is killed."""
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
        self._withdraw(waiting)
        for item, ending in waiting.items():
            item.call.resolve(item, ending)

    def _withdraw(self, items: Iterable[Input]) -> None:
        """Take the inputs out of the queues that they wait in. Each queue is gone through once."""
        by_pool: dict[Pool, set[Input]] = {}
        for item in items:
            by_pool.setdefault(self.pool(item.call.function), set()).add(item)
        for pool, gone in by_pool.items():
            if len(gone) == 1:
                with contextlib.suppress(ValueError):
                    pool.pending.remove(*gone)
            else:
                pool.pending = deque(item for item in pool.pending if item not in gone)

    def published(self, function: Function) -> None:
        """The function's definition changed: containers of the old one finish what they run and end."""
        pool = self.pool(function)
        pool.failed_starts, pool.start_not_before = 0, 0.0
        for container in list(pool.containers.values()):
            if function.callable_reason or not container.is_current:
                self._retire(container)
        if function.callable_reason:
            self._fail_pending(pool, results.terminated(function.callable_reason))
        self._match(pool)

    def rescale(self, function: Function) -> None:
        """The function's autoscaler settings changed."""
        self._match(self.pool(function))

    def stop_app(self, app: App, reason: str) -> None:
        for pool in [p for p in self._pools.values() if p.function.app is app]:
            self._fail_pending(pool, results.terminated(reason))
            # Else its turn would come before everybody's for whatever it waited for, and never pass.
            self.placing.settled(pool.function)
            for container in list(pool.containers.values()):
                for item in container.inputs.values():
                    item.ending = item.ending or results.terminated(reason)
                container.stop(reason, STOP_GRACE)

    def forget_app(self, app: App) -> None:
        """The app was stopped long ago, and nobody can ask about it any more."""
        self._pools = {i: pool for i, pool in self._pools.items() if pool.function.app is not app}

    def stop_container(self, container: Container, *, graceful: bool) -> None:
        """As ``modal container stop``: its inputs go to other containers, unless it may finish them."""
        if graceful:
            self._retire(container)
        else:
            container.stop("a user stopped the container", STOP_GRACE)

    def scale_down(self, now: float) -> None:
        """Retire what was idle for too long, and keep as many containers as functions say."""
        for pool in list(self._pools.values()):
            scaling = self.scaling(pool.function)
            spare = len(pool.current) - scaling.min_containers
            idle = [c for c in pool.current if c.state is State.READY and not c.inputs]
            if scaling.buffer_containers and pool.is_active:
                spare = min(spare, len(idle) - scaling.buffer_containers)
            for container in sorted(idle, key=lambda c: c.idle_since):
                if spare <= 0 or now - container.idle_since <= scaling.scaledown_window:
                    break
                spare -= 1
                container.retire()
            if spare < 0:
                self._scale(pool)

    # What containers report

    def asked(self, container: Container) -> None:
        """The container waits for inputs."""
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
                # Otherwise no container is missing: an asking one takes what it had room for before it asked.
                self._scale(pool)
        if is_new:
            self._match_others(pool)

    def returned(self, container: Container, items: Iterable[Input]) -> None:
        """The container never got the inputs that it was given: its request had been lost."""
        for item in items:
            if container.inputs.get(item.input_id) is item:
                self.outcomes.left(container, item)
                self._requeue(item)

    def put(self, container: Container, item: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        """The container has a result for the input."""
        log.debug("container %s is done with %s", container.container_id, item.input_id)
        self.outcomes.left(container, item)
        self.outcomes.settle(item, result, data_format)
        if container.retiring:
            container.retire()
        pool = self.pool(container.function)
        with self._pending_end(pool):
            # No container is missing now that was not missing before: there is more room for inputs.
            self._hand_out(pool)
        if not container.inputs and self.placing.has_waits:
            # At capacity its place may be worth more to another function.
            self._match_others(pool)

    def take_more(self, container: Container, size: int) -> list[Input]:
        """Return up to ``size`` further inputs for a batch that lingers, without waiting."""
        return self._assign(container, min(size, len(self.pool(container.function).pending)))

    # Matching, starting and ending

    def _match(self, pool: Pool) -> None:
        with self._pending_end(pool):
            self._hand_out(pool)
            self._scale(pool)

    @contextlib.contextmanager
    def _pending_end(self, pool: Pool) -> Iterator[None]:
        """Fail what waits for a container if the block raises: every caller has done its part."""
        try:
            yield
        except Exception as error:
            # A boundary: nobody comes back for the inputs that wait here, so they must end.
            log.exception("no container can be had for %s", pool.function.tag)
            self._fail_pending(pool, results.cannot_start(pool.function.tag, described(error)))

    def _hand_out(self, pool: Pool) -> None:
        """Give inputs that wait to containers that ask."""
        while pool.pending and (container := pool.asking()) is not None:
            self._answer(container, pool)
        if not pool.pending:
            self.placing.settled(pool.function)

    def _answer(self, container: Container, pool: Pool) -> None:
        """Give the container what it asks for."""
        ask = container.next_ask()
        try:
            ask.answer.set_result(self._assign(container, min(ask.size, container.free, len(pool.pending))))
        except BaseException:
            # It would wait for its answer forever.
            ask.answer.cancel()
            raise

    def _match_others(self, pool: Pool) -> None:
        """There may be room for containers again: start what the other pools are short of."""
        others = [other for other in self._pools.values() if other is not pool and other.pending]
        for other in sorted(others, key=lambda other: self.placing.since(other.function)):
            self._match(other)

    def _assign(self, container: Container, size: int) -> list[Input]:
        pool = self.pool(container.function)
        items = list(islice(pool.pending, size))
        # Taken off the queue when the container has them: what raises before leaves them where they are.
        container.hold(items)
        for _ in items:
            pool.pending.popleft()
        log.debug("container %s runs %s", container.container_id, [item.input_id for item in items])
        if container.is_single_use:
            container.retiring = True
        for item in items:
            self.outcomes.begun(container, item)
        self._runner.on_input(container)
        return items

    def _scale(self, pool: Pool) -> None:
        function = pool.function
        if self._closing or function.callable_reason or not function.current_revision:
            return
        scaling = self.scaling(function)
        wanted = max(pool.shortage(), scaling.min_containers - len(pool.current))
        if scaling.buffer_containers:
            wanted = max(wanted, pool.buffer_shortage(scaling.buffer_containers))
        if scaling.max_containers:
            wanted = min(wanted, scaling.max_containers - len(pool.current))
        if wanted <= 0:
            return
        wait = pool.start_not_before - time.monotonic()
        if wait > 0:
            if pool.retry_start is None:
                pool.retry_start = asyncio.get_running_loop().call_later(wait, self._scale_again, pool)
            return
        if reason := self.placing.impossible(function):
            self._fail_pending(pool, results.cannot_start(function.tag, reason))
            return
        for _ in range(wanted):
            if self._containers.starting >= STARTING_AT_ONCE:
                return
            need = self.placing.fitting(function)
            if need is None:
                if pool.pending:
                    for container in self.placing.in_the_way(function, self._containers):
                        self._retire(container)
                return
            self._start(Container(function), pool, need)

    def _scale_again(self, pool: Pool) -> None:
        pool.retry_start = None
        self._scale(pool)

    def _start(self, container: Container, pool: Pool, need: Need) -> None:
        self.placing.take(container, need)
        pool.containers[container.container_id] = container
        self._containers.add(container)
        task = asyncio.get_running_loop().create_task(self._run(container, pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, container: Container, pool: Pool) -> None:
        try:
            returncode = await self._runner.run(container)
        except GeneratorExit:
            # The event loop was closed before the container ended: nothing waits any more, and nothing can be started.
            raise
        except BaseException as error:
            # A task's boundary: inputs wait for this container, whatever ended it.
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
        self.placing.ended(container)
        for item in list(container.inputs.values()):
            self._lost(container, item, returncode, ending)
        if was_starting and not container.end_reason:
            container.start_failure = container.start_failure or container.death
            self._start_failed(container, pool, ending)
        self._match(pool)
        self._match_others(pool)

    def _lost(self, container: Container, item: Input, returncode: int, ending: str) -> None:
        try:
            self.outcomes.lost(container, item, returncode, ending)
        except Exception as error:
            # A boundary: the container's other inputs must end as well, and so must this one.
            log.exception("the end of container %s was not handled for %s", container.container_id, item.input_id)
            if not item.done:
                reason = f"container {container.container_id} {ending}; the control plane failed: {described(error)}"
                item.call.resolve(item, results.crashed(reason, returncode))

    def said_hello(self, container: Container) -> None:
        """Its runtime is there and begins with the app's own code, which may take ``startup_timeout`` seconds."""
        seconds = container.spec.startup_timeout_secs
        if seconds == container.spec.timeout_secs:
            # The SDK sends the timeout where nothing is said of the start: that a machine under load imports slowly is
            # not the app's fault.
            seconds = max(seconds, SHORTEST_STARTUP_TIMEOUT)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._start_timed_out, container, seconds)

    @staticmethod
    def _start_timed_out(container: Container, seconds: float) -> None:
        """It took longer than ``startup_timeout`` until it asked for an input: it counts as a start that failed."""
        if container.state is State.STARTING and container.process is not None:
            container.start_failure = results.startup_timed_out(container.container_id, seconds)
            container.process.kill()

    def _start_failed(self, container: Container, pool: Pool, ending: str) -> None:
        log.warning("container %s %s before it took an input", container.container_id, ending)
        if container.enqueued_at < pool.last_failed_start:
            # Started together with one that failed: that is one failure, not many.
            return
        pool.last_failed_start = clock.now()
        pool.failed_starts += 1
        pool.start_not_before = time.monotonic() + START_BACKOFF.after(pool.failed_starts)
        if pool.failed_starts >= START_TRIES and pool.pending:
            # What comes later gets tries of its own; min_containers alone goes on with a growing backoff.
            result = container.start_failure or hints.explained(
                results.failed_to_start(container.container_id, ending, container.last_words, pool.failed_starts),
                container.missing,
            )
            pool.failed_starts, pool.start_not_before = 0, 0.0
            self._fail_pending(pool, result)

    def _fail_pending(self, pool: Pool, result: api_pb2.GenericResult) -> None:
        failed, pool.pending = pool.pending, deque()
        for item in failed:
            item.call.resolve(item, result)

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
