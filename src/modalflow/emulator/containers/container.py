"""One container: what it runs, what it asks for, what it is told, how it ends.

Owns a container's own state. Which input goes to it, and what its end means for them, is pools.py's; how its process
comes to be is launching.py's.
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
from modalflow.emulator.functions.definitions import Function
from modalflow.emulator.ids import new_id
from modalflow.emulator.processes.process import Process
from modalflow.emulator.state.broadcast import Changes

#: A cancellation that the container did not act on is told again after this many seconds: it may have come before the
#: container had unpacked the input, and then nothing happened. Told twice, it counts once.
CANCEL_REPEATED_AFTER = 3.0

#: Lines of stderr that a container which never got to work is quoted with.
LAST_WORDS = 20


def inputs_at_once(spec: api_pb2.Function) -> int:
    """How many inputs a container of that definition can run at once."""
    return max(spec.target_concurrent_inputs or spec.max_concurrent_inputs, spec.batch_max_size, 1)


class State(enum.Enum):
    """Where a container is in its life."""

    STARTING = "starting"
    READY = "ready"
    """It has asked for an input."""
    ENDED = "ended"


@dataclass(eq=False)
class Ask:
    """A FunctionGetInputs that waits. Its answer is inputs, or None: end yourself."""

    size: int
    answer: asyncio.Future[list[Input] | None]


@dataclass(eq=False)
class Container:
    """A container of one function, at the revision that was current when it was started."""

    function: Function
    container_id: str = field(default_factory=lambda: new_id("ta"))
    state: State = State.STARTING
    retiring: bool = False
    """It gets no further inputs."""
    end_reason: str = ""
    """Why the control plane ended it, empty if it ended by itself."""
    process: Process | None = None
    is_plain: bool = True
    """Whether it has no root of its own: it starts with Isolation.PLAIN."""
    missing: tuple[str, ...] = ()
    """The steps of its image that were not executed."""
    inputs: dict[str, Input] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    blameless_until: float = 0.0
    """Until then its end is the effect of a cancellation, and not the fault of the inputs that it ran."""
    stderr_tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_WORDS), repr=False)
    start_failure: api_pb2.GenericResult | None = None
    death: api_pb2.GenericResult | None = None
    """What became of it by its own fault, and so of the inputs that it ran."""
    enqueued_at: float = field(default_factory=clock.now)
    started_at: float = 0.0
    finished_at: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    last_heard: float = field(default_factory=time.monotonic)
    told: dict[str, float] = field(default_factory=dict, repr=False)
    """When the container was last told of a cancellation, by input."""
    news: Changes = field(default_factory=Changes, repr=False)

    def __post_init__(self) -> None:
        self.revision = self.function.current_revision
        self.spec = api_pb2.Function()
        self.spec.CopyFrom(self.function.spec)
        self.room = inputs_at_once(self.spec)
        """How many inputs it can run at once."""

    @property
    def free(self) -> int:
        """How many more inputs it can take."""
        if self.state is State.ENDED or self.retiring:
            return 0
        return max(self.room - len(self.inputs), 0)

    def was_ended(self) -> bool:
        """Whether the control plane has ended it, or is about to."""
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
        """The input that whatever is printed now belongs to, None where that is not certain."""
        return next(iter(self.inputs.values())) if len(self.inputs) == 1 and self.room == 1 else None

    def ask(self, size: int) -> Ask:
        """Ask for up to ``size`` inputs. The answer may be there already: a retiring container is told to end."""
        asked = Ask(size, asyncio.get_running_loop().create_future())
        if self.retiring:
            asked.answer.set_result(None)
        else:
            self.asks.append(asked)
        return asked

    @property
    def is_asking(self) -> bool:
        # A request that was given up has its answer cancelled, and nobody to withdraw it.
        self.asks = [ask for ask in self.asks if not ask.answer.done()]
        return bool(self.asks)

    def next_ask(self) -> Ask:
        """Return the ask that waits longest. There must be one."""
        return self.asks.pop(0)

    def hold(self, items: list[Input]) -> None:
        """From now on it runs the inputs."""
        if self.process is not None and self.room == 1:
            # What was printed before does not belong to this input. With room for more, lines belong to no input.
            self.process.drain()
        now = clock.now()
        for item in items:
            item.container_id = self.container_id
            item.started_at = now
            self.inputs[item.input_id] = item

    def take_back(self, item: Input) -> None:
        """The input is no longer run here."""
        self.inputs.pop(item.input_id, None)
        self.told.pop(item.input_id, None)
        if not self.inputs:
            self.idle_since = time.monotonic()

    def retire(self) -> None:
        """Give it no further inputs, and let it end once it has none."""
        self.retiring = True
        if not self.inputs:
            self.release()

    def release(self) -> None:
        """Answer whatever it asks with: end yourself."""
        self.retiring = True
        while self.is_asking:
            self.next_ask().answer.set_result(None)

    def kill(self, reason: str) -> None:
        """End it now. The reason goes to whoever waits for its inputs."""
        self.end_reason = self.end_reason or reason
        self.retiring = True
        if self.process is not None and self.state is not State.ENDED:
            self.process.kill()

    def stop(self, reason: str, grace: float) -> None:
        """Ask it to end, and kill it if it has not ended within ``grace`` seconds."""
        self.end_reason = self.end_reason or reason
        self.retiring = True
        if self.process is None or self.state is State.STARTING:
            self.kill(reason)
            return
        self.process.interrupt()
        asyncio.get_running_loop().call_later(grace, self.kill, reason)

    def cancellations(self) -> list[str]:
        """The inputs that the container shall stop running and was not told of lately; then it counts as told."""
        now = time.monotonic()
        due = [
            item.input_id
            for item in self.inputs.values()
            if item.ending is not None and now - self.told.get(item.input_id, -math.inf) >= CANCEL_REPEATED_AFTER
        ]
        for input_id in due:
            self.told[input_id] = now
        return due

    @property
    def has_cancellations(self) -> bool:
        return any(i.ending is not None and i.input_id not in self.told for i in self.inputs.values())
