"""One container: its inputs, its requests for inputs, its cancellations, its end.

Owns the state of a container. ``pools`` assigns inputs to it and handles its end; ``launcher`` starts its process.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections import deque
from dataclasses import dataclass, field

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers import results
from modalflow.emulator.functions.function import Function
from modalflow.emulator.ids import new_id
from modalflow.emulator.processes.process import Process
from modalflow.emulator.state.broadcast import Broadcast

#: Seconds before a cancellation without effect is sent again: it may have arrived before the container had unpacked the
#: input. A repetition has no further effect.
CANCEL_REPEATED_AFTER = 3.0

#: Lines of stderr to quote if a container ended before its first input.
LAST_WORDS = 20

#: Seconds for the start if the function sets none. Its timeout also counts for the start then (Modal's guide,
#: "Timeouts"), and may be one second.
SHORTEST_STARTUP_TIMEOUT = 30


def inputs_at_once(spec: api_pb2.Function) -> int:
    """Return how many inputs a container of this definition can run at once."""
    return max(spec.target_concurrent_inputs or spec.max_concurrent_inputs, spec.batch_max_size, 1)


class State(enum.Enum):
    """The state of a container."""

    STARTING = "starting"
    READY = "ready"
    """It has asked for an input."""
    ENDED = "ended"


@dataclass(eq=False)
class Ask:
    """A waiting FunctionGetInputs. The answer is inputs, or None to make the container end."""

    size: int
    answer: asyncio.Future[list[Input] | None]


@dataclass(eq=False)
class Container:
    """A container of one function, at the revision that was current when it was started."""

    function: Function
    container_id: str = field(default_factory=lambda: new_id("ta"))
    state: State = State.STARTING
    retiring: bool = False
    """Whether it gets no further inputs."""
    end_reason: str = ""
    """Why the control plane ended it; empty if it did not."""
    process: Process | None = None
    is_plain: bool = True
    """Whether it lacks its own root (Isolation.PLAIN)."""
    is_in_gvisor: bool = False
    """Whether gVisor opens files for it (Isolation.GVISOR)."""
    missing: tuple[str, ...] = ()
    """The steps of its image that were not executed."""
    inputs: dict[str, Input] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    blameless_until: float = 0.0
    """Until this time, its end counts as the effect of a cancellation, not as a failure of its inputs."""
    stderr_tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WORDS), repr=False)
    start_failure: api_pb2.GenericResult | None = None
    death: api_pb2.GenericResult | None = None
    """The result for its inputs if it ended through its own fault."""
    enqueued_at: float = field(default_factory=clock.now)
    started_at: float = 0.0
    finished_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    last_heard: float = field(default_factory=time.monotonic)
    cancellations_sent: dict[str, float] = field(default_factory=dict, repr=False)
    """When a cancellation was last sent, by input."""
    changes: Broadcast = field(default_factory=Broadcast, repr=False)

    def __post_init__(self) -> None:
        self.revision = self.function.current_revision
        self.spec = api_pb2.Function()
        self.spec.CopyFrom(self.function.spec)
        self.concurrency = inputs_at_once(self.spec)
        """The number of inputs that it can run at once."""

    @property
    def free(self) -> int:
        """Return how many more inputs it can accept."""
        if self.state is State.ENDED or self.retiring:
            return 0
        return max(self.concurrency - len(self.inputs), 0)

    def was_ended(self) -> bool:
        """Return whether the control plane has ended it, or is about to."""
        return bool(self.end_reason)

    @property
    def is_current(self) -> bool:
        return self.revision == self.function.current_revision

    @property
    def is_single_use(self) -> bool:
        return self.spec.single_use_containers or self.spec.max_inputs == 1

    @property
    def last_words(self) -> str:
        return "".join(self.stderr_tail).rstrip()

    @property
    def sole_input(self) -> Input | None:
        """Return the input to which printed lines belong; None if that is uncertain."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 and self.concurrency == 1 else None

    def on_hello(self) -> None:
        """Start the clock of ``startup_timeout``: the runtime is up and begins to import the app."""
        seconds = self.spec.startup_timeout_secs
        if seconds == self.spec.timeout_secs:
            # If the app sets no timeout for the start, the SDK sends the other one. Slow imports on a loaded machine
            # are not the app's fault.
            seconds = max(seconds, SHORTEST_STARTUP_TIMEOUT)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._start_timed_out, seconds)

    def _start_timed_out(self, seconds: float) -> None:
        if self.state is State.STARTING and self.process is not None:
            self.start_failure = results.startup_timed_out(self.container_id, seconds)
            self.process.kill()

    def ask(self, size: int) -> Ask:
        """Request up to ``size`` inputs. A retiring container gets its answer immediately: end."""
        request = Ask(size, asyncio.get_running_loop().create_future())
        if self.retiring:
            request.answer.set_result(None)
        else:
            self.asks.append(request)
        return request

    @property
    def is_asking(self) -> bool:
        # The answer of an abandoned request is cancelled; no one withdraws the request.
        self.asks = [ask for ask in self.asks if not ask.answer.done()]
        return bool(self.asks)

    def next_ask(self) -> Ask:
        """Return the request that has waited longest. There must be one."""
        return self.asks.pop(0)

    def hold(self, items: list[Input]) -> None:
        """Assign inputs to it."""
        if self.process is not None and self.concurrency == 1:
            # Earlier output does not belong to this input. With several inputs at once, lines belong to none.
            self.process.drain()
        now = clock.now()
        for item in items:
            item.container_id = self.container_id
            item.started_at = now
            self.inputs[item.input_id] = item

    def release_input(self, item: Input) -> None:
        """Remove an input that it no longer runs."""
        self.inputs.pop(item.input_id, None)
        self.cancellations_sent.pop(item.input_id, None)
        if not self.inputs:
            self.idle_since = time.monotonic()

    def retire(self) -> None:
        """Assign no further inputs, and let it end when it has none."""
        self.retiring = True
        if not self.inputs:
            self.release()

    def release(self) -> None:
        """Answer all requests for inputs: end."""
        self.retiring = True
        while self.is_asking:
            self.next_ask().answer.set_result(None)

    def kill(self, reason: str) -> None:
        """Kill it. Callers of its inputs get the reason."""
        self.end_reason = self.end_reason or reason
        self.retiring = True
        if self.process is not None and self.state is not State.ENDED:
            self.process.kill()

    def stop(self, reason: str, grace: float) -> None:
        """Ask it to end, and kill it after ``grace`` seconds."""
        self.end_reason = self.end_reason or reason
        self.retiring = True
        if self.process is None or self.state is State.STARTING:
            self.kill(reason)
            return
        self.process.interrupt()
        asyncio.get_running_loop().call_later(grace, self.kill, reason)

    def cancellations(self) -> list[str]:
        """Return the inputs to cancel, except those sent recently, and record them as sent."""
        now = time.monotonic()
        due = [
            item.input_id
            for item in self.inputs.values()
            if item.ending is not None
            and now - self.cancellations_sent.get(item.input_id, -math.inf) >= CANCEL_REPEATED_AFTER
        ]
        for input_id in due:
            self.cancellations_sent[input_id] = now
        return due

    @property
    def has_cancellations(self) -> bool:
        return any(i.ending is not None and i.input_id not in self.cancellations_sent for i in self.inputs.values())
