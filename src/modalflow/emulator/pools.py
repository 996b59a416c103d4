"""Which container runs which input: starting, reusing, retiring and replacing containers, and trying inputs again.

Owns the policies that no RPC shows: scaling up and down, retries, timeouts, what a lost container means. It hears of
everything from its callers and does no RPC of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator

from modal_proto import api_pb2

from modalflow.emulator import results
from modalflow.emulator.apps import App
from modalflow.emulator.calls import Input
from modalflow.emulator.containers import Container, State
from modalflow.emulator.functions import Function, Scaling

log = logging.getLogger(__name__)

#: A container of a deployed app that is lost takes its inputs with it this many times; then they fail with the reason.
CRASH_TRIES = 3

#: Containers that end before they asked for an input, one after another, until the inputs that wait for one fail.
START_TRIES = 3

#: Containers that start at the same time. Starting takes processor time and little else: more at once would all be
#: later, and a short input that a container has done meanwhile needs none.
STARTING_AT_ONCE = max(4, 2 * (os.cpu_count() or 1))

#: Seconds before the second start after a failed one; it doubles with each.
START_BACKOFF = 0.25
LONGEST_START_BACKOFF = 30.0

#: Seconds for an input that ran out of time to end on its own, before its container is killed.
TIMEOUT_GRACE = 5.0

#: The same for a cancelled one. As long as Modal gives exit handlers.
CANCEL_GRACE = 30.0

_RETRIED = (
    api_pb2.GenericResult.GENERIC_STATUS_FAILURE,
    api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT,
)


class Pool:
    """The inputs that wait for one function, or variant of one, and its containers."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.pending: deque[Input] = deque()
        self.containers: dict[str, Container] = {}
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
        found = [c for c in self.current if c.asks and c.free]
        return max(found, key=lambda c: c.idle_since, default=None)

    def shortage(self) -> int:
        """How many containers are missing for all that waits. One that has room will ask, or is about to."""
        room = sum(c.free for c in self.current)
        missing = len(self.pending) - room
        if missing <= 0:
            return 0
        spec = self.function.spec
        each = max(spec.target_concurrent_inputs or spec.max_concurrent_inputs, spec.batch_max_size, 1)
        return -(-missing // each)


class Pools:
    """All pools of a control plane. Its methods are called on the event loop and do not block."""

    def __init__(
        self,
        launch: Callable[[Container], Awaitable[int]],
        *,
        max_containers: int,
        scaledown_window: float,
    ) -> None:
        self._launch = launch
        self._max_containers = max_containers
        self._scaledown_window = scaledown_window
        self._pools: dict[str, Pool] = {}
        self._containers: dict[str, Container] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing = False

    # What others ask

    def pool(self, function: Function) -> Pool:
        pool = self._pools.get(function.object_id)
        if pool is None:
            pool = self._pools[function.object_id] = Pool(function)
        return pool

    def container(self, container_id: str | None) -> Container | None:
        return self._containers.get(container_id or "")

    def live(self) -> Iterator[Container]:
        return (c for c in list(self._containers.values()) if c.state is not State.ENDED)

    def scaling(self, function: Function) -> Scaling:
        return function.scaling(self._scaledown_window)

    # What callers want

    def submit(self, item: Input) -> None:
        """Run the input as soon as a container can."""
        if item.done:
            return
        if item.ending is not None:
            self._settle(item, item.ending)
        elif item.call.function.callable_reason:
            self._resolve(item, results.terminated(item.call.function.callable_reason))
        else:
            pool = self.pool(item.call.function)
            pool.pending.append(item)
            self._match(pool)

    def cancel(self, items: Iterable[Input], *, terminate_containers: bool) -> None:
        """End the inputs as TERMINATED: what waits at once, what runs when its container says so or is killed."""
        for item in items:
            if item.done:
                continue
            if item.ending is None:
                item.ending = results.terminated(f"Input {item.input_id} was cancelled by a user")
            container = self._running(item)
            if container is None:
                with contextlib.suppress(ValueError):
                    self.pool(item.call.function).pending.remove(item)
                self._settle(item, item.ending)
            elif terminate_containers:
                container.kill(f"a user cancelled input {item.input_id} and asked to terminate its container")
            else:
                self._tell_to_end(container, item, CANCEL_GRACE, "did not act on the cancellation of")

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

    def stop_app(self, app: App, reason: str) -> None:
        for pool in [p for p in self._pools.values() if p.function.app is app]:
            self._fail_pending(pool, results.terminated(reason))
            for container in list(pool.containers.values()):
                for item in container.inputs.values():
                    item.ending = item.ending or results.terminated(reason)
                self._stop(container, reason)

    def stop_container(self, container: Container, *, graceful: bool) -> None:
        """As ``modal container stop``: its inputs go to other containers, unless it may finish them."""
        if graceful:
            self._retire(container)
        else:
            self._stop(container, "a user stopped the container")

    # What containers report

    def asked(self, container: Container) -> None:
        """The container waits for inputs."""
        is_new = container.state is State.STARTING
        if is_new:
            container.state = State.READY
            container.started_at = time.time()
            container.idle_since = time.monotonic()
        pool = self.pool(container.function)
        pool.failed_starts = 0
        if not container.is_current:
            self._retire(container)
        self._match(pool)
        if is_new:
            self._match_others(pool)

    def returned(self, container: Container, item: Input) -> None:
        """The container never got the input that it was given: its request had been lost."""
        self._untime(item)
        container.take_back(item)
        self._requeue(item)

    def put(self, container: Container, item: Input, result: api_pb2.GenericResult, data_format: int) -> None:
        """The container has a result for the input."""
        log.debug("container %s is done with %s", container.container_id, item.input_id)
        self._untime(item)
        container.take_back(item)
        if item.ending is not None:
            self._settle(item, item.ending)
        else:
            self._settle(item, result, data_format)
        if container.is_single_use or container.retiring:
            container.retire()
        self._match(self.pool(container.function))

    # Starting and ending

    def _match(self, pool: Pool) -> None:
        while pool.pending and (container := pool.asking()) is not None:
            size = min(container.asks[0].size, container.free, len(pool.pending))
            ask = container.asks.pop(0)
            if ask.answer.done():
                # Its request was given up, and has not had its turn to take the ask back.
                continue
            ask.answer.set_result(self._assign(container, size))
        self._scale(pool)

    def take_more(self, container: Container, size: int) -> list[Input]:
        """Return up to ``size`` further inputs for a batch that lingers, without waiting."""
        return self._assign(container, min(size, len(self.pool(container.function).pending)))

    def _assign(self, container: Container, size: int) -> list[Input]:
        pool = self.pool(container.function)
        items = [pool.pending.popleft() for _ in range(size)]
        container.hold(items)
        log.debug("container %s runs %s", container.container_id, [item.input_id for item in items])
        if container.is_single_use:
            container.retiring = True
        seconds = container.spec.timeout_secs
        if seconds:
            loop = asyncio.get_running_loop()
            for item in items:
                self._timers[item.input_id] = loop.call_later(seconds, self._out_of_time, container, item)
        return items

    def _scale(self, pool: Pool) -> None:
        function = pool.function
        if self._closing or function.callable_reason or (not function.root.revision):
            return
        scaling = self.scaling(function)
        wanted = max(pool.shortage(), scaling.min_containers - len(pool.current))
        if scaling.max_containers:
            wanted = min(wanted, scaling.max_containers - len(pool.current))
        if wanted <= 0:
            return
        wait = pool.start_not_before - time.monotonic()
        if wait > 0:
            if pool.retry_start is None:
                pool.retry_start = asyncio.get_running_loop().call_later(wait, self._scale_again, pool)
            return
        for _ in range(wanted):
            if sum(c.state is State.STARTING for c in self.live()) >= STARTING_AT_ONCE:
                return
            if sum(1 for _ in self.live()) >= self._max_containers:
                self._evict(pool)
                return
            self._start(Container(function), pool)

    def _scale_again(self, pool: Pool) -> None:
        pool.retry_start = None
        self._scale(pool)

    def _evict(self, hungry: Pool) -> None:
        """At capacity, retire an idle container of another function; what waits starts when it has ended."""
        idle = [
            c
            for pool in self._pools.values()
            if pool is not hungry
            for c in pool.containers.values()
            if c.state is State.READY and not c.inputs and not c.retiring
        ]
        if idle and hungry.pending:
            self._retire(min(idle, key=lambda c: c.idle_since))

    def _start(self, container: Container, pool: Pool) -> None:
        pool.containers[container.container_id] = container
        self._containers[container.container_id] = container
        task = asyncio.get_running_loop().create_task(self._run(container, pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, container: Container, pool: Pool) -> None:
        try:
            returncode = await self._launch(container)
            ending = results.describe_ending(returncode)
        except Exception as error:
            # Whatever went wrong, inputs wait for this container and must hear of it.
            log.exception("container %s could not be run", container.container_id)
            returncode, ending = -1, f"could not be run ({error})"
        self._ended(container, pool, returncode, ending)

    def _ended(self, container: Container, pool: Pool, returncode: int, ending: str) -> None:
        was_starting = container.state is State.STARTING
        container.state = State.ENDED
        container.finished_at = time.time()
        container.retire()
        for ask in container.asks:
            if not ask.answer.done():
                ask.answer.set_result(None)
        pool.containers.pop(container.container_id, None)
        container.ended.set()
        lost = list(container.inputs.values())
        container.inputs.clear()
        for item in lost:
            self._untime(item)
            self._lost(container, item, returncode, ending)
        if was_starting and not container.end_reason:
            self._start_failed(container, pool, ending)
        self._match(pool)
        self._match_others(pool)

    def _match_others(self, pool: Pool) -> None:
        """There is room for containers again: start what the other pools are short of."""
        for other in list(self._pools.values()):
            if other is not pool and (other.pending or self.scaling(other.function).min_containers):
                self._match(other)

    def _lost(self, container: Container, item: Input, returncode: int, ending: str) -> None:
        """The container is gone and the input was on it."""
        if item.ending is not None:
            self._settle(item, item.ending)
            return
        if container.end_reason or time.monotonic() < container.blameless_until:
            self._requeue(item)
            return
        item.crashes += 1
        reason = f"container {container.container_id} {ending} while running this input"
        log.info("%s (%s, loss %d)", reason, item.input_id, item.crashes)
        if item.call.function.app.is_deployed and item.crashes < CRASH_TRIES:
            self._later(START_BACKOFF * 2 ** (item.crashes - 1), item)
            return
        if item.crashes > 1:
            reason += f"; it was the last of {item.crashes} containers lost to it"
        self._resolve(item, results.crashed(reason, returncode))

    def _start_failed(self, container: Container, pool: Pool, ending: str) -> None:
        log.warning("container %s %s before it took an input", container.container_id, ending)
        if container.enqueued_at < pool.last_failed_start:
            # Started together with one that failed: that is one failure, not many.
            return
        pool.last_failed_start = time.time()
        pool.failed_starts += 1
        backoff = min(START_BACKOFF * 2 ** (pool.failed_starts - 1), LONGEST_START_BACKOFF)
        pool.start_not_before = time.monotonic() + backoff
        if pool.failed_starts < START_TRIES:
            return
        if pool.pending:
            # What comes later gets tries of its own; min_containers alone goes on with a growing backoff.
            result = container.start_failure or results.failed_to_start(
                container.container_id, ending, container.last_words, pool.failed_starts
            )
            pool.failed_starts, pool.start_not_before = 0, 0.0
            self._fail_pending(pool, result)

    def _retire(self, container: Container) -> None:
        container.retire()
        if container.state is State.STARTING:
            container.kill("it is no longer needed")

    def _stop(self, container: Container, reason: str, grace: float = 5.0) -> None:
        """Ask the container to end, and end it if it does not."""
        container.end_reason = container.end_reason or reason
        container.retiring = True
        if container.process is None or container.state is State.STARTING:
            container.kill(reason)
            return
        container.process.interrupt()
        asyncio.get_running_loop().call_later(grace, self._kill_if_alive, container, reason)

    @staticmethod
    def _kill_if_alive(container: Container, reason: str) -> None:
        if container.state is not State.ENDED:
            container.kill(reason)

    def rescale(self, function: Function) -> None:
        """The function's autoscaler settings changed."""
        self._match(self.pool(function))

    def scale_down(self, now: float) -> None:
        """Retire what was idle for too long, and keep as many containers as functions say."""
        for pool in list(self._pools.values()):
            scaling = self.scaling(pool.function)
            spare = len(pool.current) - scaling.min_containers
            idle = [c for c in pool.current if c.state is State.READY and not c.inputs]
            for container in sorted(idle, key=lambda c: c.idle_since):
                if spare <= 0 or now - container.idle_since <= scaling.scaledown_window:
                    break
                spare -= 1
                container.retire()
            if spare < 0:
                self._scale(pool)

    # Results

    def _settle(self, item: Input, result: api_pb2.GenericResult, data_format: int = 0) -> None:
        """Resolve the input, or try it again where the function's retry policy says so."""
        policy = item.call.function.spec.retry_policy
        if result.status in _RETRIED and item.retries < policy.retries and not item.call.function.callable_reason:
            item.retries += 1
            item.ending = None
            delay = policy.initial_delay_ms * (policy.backoff_coefficient or 1.0) ** (item.retries - 1)
            self._later(min(delay, policy.max_delay_ms or delay) / 1000, item)
            return
        self._resolve(item, result, data_format)

    @staticmethod
    def _resolve(item: Input, result: api_pb2.GenericResult, data_format: int = 0) -> None:
        item.call.resolve(item, result, data_format)

    def _fail_pending(self, pool: Pool, result: api_pb2.GenericResult) -> None:
        failed, pool.pending = pool.pending, deque()
        for item in failed:
            self._resolve(item, result)

    def _later(self, delay: float, item: Input) -> None:
        asyncio.get_running_loop().call_later(delay, self.submit, item)

    def _requeue(self, item: Input) -> None:
        """Put an input that is not to blame back where it was: first."""
        if item.ending is not None or item.call.function.callable_reason:
            self.submit(item)
            return
        pool = self.pool(item.call.function)
        pool.pending.appendleft(item)
        self._match(pool)

    # Time

    def _out_of_time(self, container: Container, item: Input) -> None:
        if item.done or item.ending is not None or container.inputs.get(item.input_id) is not item:
            return
        item.ending = results.timed_out(container.container_id, container.spec.timeout_secs)
        self._tell_to_end(container, item, TIMEOUT_GRACE, "did not end after the timeout of")

    def _tell_to_end(self, container: Container, item: Input, grace: float, what: str) -> None:
        container.news.notify()
        if container.room > 1:
            # One cancelled synchronous input ends the whole container: the others are not to blame.
            container.blameless_until = time.monotonic() + grace
        reason = f"it {what} input {item.input_id} for {grace:g} s"
        asyncio.get_running_loop().call_later(grace, self._kill_if_running, container, item, reason)

    @staticmethod
    def _kill_if_running(container: Container, item: Input, reason: str) -> None:
        if container.inputs.get(item.input_id) is item and item.ending is not None:
            container.kill(reason)

    def _untime(self, item: Input) -> None:
        timer = self._timers.pop(item.input_id, None)
        if timer is not None:
            timer.cancel()

    def _running(self, item: Input) -> Container | None:
        container = self._containers.get(item.container_id)
        return container if container is not None and item.input_id in container.inputs else None

    # The end

    async def close(self, grace: float = 3.0) -> None:
        """End all containers and wait until they are gone."""
        self._closing = True
        for container in self.live():
            self._stop(container, "the local control plane is stopping", grace)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for timer in self._timers.values():
            timer.cancel()
