"""A function call and its inputs: arguments, progress and results.

Owns their state, and notifies an observer of every change. `Calls` has the RPCs about calls, `Pools` runs inputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.functions.function import Function
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.state.broadcast import Broadcast

GENERIC_STATUS_PENDING = api_pb2.GenericResult.GENERIC_STATUS_UNSPECIFIED

#: The content of an input that is done, and the replacement for a cleared output. A map leaves one of each for every
#: input, so all of them share these.
NO_CONTENT = api_pb2.FunctionInput()
CLEARED = api_pb2.FunctionGetOutputsItem()


class CallObserver(Protocol):
    """Is notified of every change of a call, and records it."""

    def called(self, call: FunctionCall) -> None:
        """Record a new call."""

    def changed(self, item: Input) -> None:
        """Record a new input, or one whose counts or ending changed."""

    def resolved(self, item: Input) -> None:
        """Record the result of an input: the output at its place."""

    def yielded(self, call: FunctionCall, chunk: api_pb2.DataChunk) -> None:
        """Record a chunk of a generator."""

    def cleared(self, call: FunctionCall, places: Collection[int]) -> None:
        """Drop outputs that a client has taken and does not want kept."""

    def forgotten(self, call: FunctionCall) -> None:
        """Drop a call that no caller can ask about any more."""


@dataclass(eq=False, slots=True)
class Input:
    """One input of a call, through all its attempts."""

    call: FunctionCall
    idx: int
    content: api_pb2.FunctionInput
    number: int = 0
    """Its place among the inputs of the call, oldest first."""
    input_id: str = field(default_factory=lambda: new_id("in"))
    retries: int = 0
    """The number of the function's retries that were used."""
    crashes: int = 0
    """The number of containers that were lost while they ran it."""
    container_id: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    ending: api_pb2.GenericResult | None = None
    """Its result once it is cancelled or out of time; later reports of the container do not count."""
    status: int = GENERIC_STATUS_PENDING
    done: bool = False
    place: int = -1
    """The place of its result among the outputs of the call, once it is done."""

    def save(self) -> None:
        """Record its counts and its ending as they are now."""
        self.call.observer.changed(self)


@dataclass(eq=False)
class FunctionCall:
    """One call, of one input or, for a map, of many."""

    function: Function
    kind: int
    invocation: int
    observer: CallObserver = field(repr=False)
    parent_input_id: str = ""
    call_id: str = field(default_factory=lambda: new_id("fc"))
    created_at: float = field(default_factory=clock.now)
    inputs: dict[str, Input] = field(default_factory=dict)
    by_idx: list[Input] | None = field(default_factory=list)
    """The same inputs, each at its index; None if the client did not number them in order."""
    outputs: list[api_pb2.FunctionGetOutputsItem] = field(default_factory=list)
    """Oldest first; the ``last_entry_id`` of a client refers to a place in it."""
    data_out: list[api_pb2.DataChunk] = field(default_factory=list)
    """The chunks that a generator yielded."""
    changed: Broadcast = field(default_factory=Broadcast)
    unfinished: int = 0
    cleared: set[int] = field(default_factory=set)
    """Places in ``outputs`` that a client has taken and does not want kept; their results are gone."""
    over: Broadcast = field(default_factory=Broadcast)
    """Notified when every input is done."""
    handed_over_at: float = -math.inf
    """The last time a client got outputs, by the clock of the event loop."""
    last_result_at: float = 0.0

    def put(self, item: api_pb2.FunctionPutInputsItem) -> Input:
        new = Input(self, item.idx, item.input, len(self.inputs))
        self.add(new)
        self.count(1)
        self.observer.changed(new)
        return new

    def add(self, item: Input) -> None:
        """Add a restored input as the next one of the call."""
        self.inputs[item.input_id] = item
        if self.by_idx is not None:
            if item.idx == len(self.by_idx):
                self.by_idx.append(item)
            else:
                self.by_idx = None

    def count(self, change: int) -> None:
        """Count more unfinished inputs, or fewer if ``change`` is negative."""
        self.unfinished += change
        self.function.backlog.count(self.invocation, change)

    def resolve(self, item: Input, result: api_pb2.GenericResult, data_format: int = 0) -> None:
        """Give the input its result; a second one is ignored."""
        if item.done:
            return
        item.done = True
        item.finished_at = clock.now()
        item.status = result.status
        item.content = NO_CONTENT
        item.place = len(self.outputs)
        self.count(-1)
        self.last_result_at = item.finished_at
        self.outputs.append(
            message(
                api_pb2.FunctionGetOutputsItem,
                result=result,
                idx=item.idx,
                input_id=item.input_id,
                data_format=data_format,
                task_id=item.container_id,
                input_started_at=item.started_at,
                output_created_at=item.finished_at,
            )
        )
        self.observer.resolved(item)
        self.changed.notify()
        if not self.unfinished:
            self.over.notify()

    def yielded(self, chunks: Iterable[api_pb2.DataChunk]) -> None:
        """Add the chunks that a generator yields.

        A generator that runs again after the loss of its container counts from 1 again. Existing chunks stay: the SDK
        drops chunks up to the last index it saw, so a caller who followed the first run and one who comes later see the
        same. (Inferred. If Modal resent all of them and left this to the client, the effect would be the same.)
        """
        for chunk in chunks:
            if not self.data_out or chunk.index > self.data_out[-1].index:
                self.data_out.append(chunk)
                self.observer.yielded(self, chunk)
        self.changed.notify()

    def clear(self, places: Collection[int]) -> None:
        """Drop outputs that a client has taken and does not want kept."""
        new = [place for place in places if place not in self.cleared]
        if new:
            self.cleared.update(new)
            for place in new:
                # The client may be about to download a blob, which is removed once no output names it.
                if not self.outputs[place].result.data_blob_id:
                    self.outputs[place] = CLEARED
            self.observer.cleared(self, new)

    def has_news(self, sent: int) -> bool:
        """Return whether there are more than ``sent`` chunks, or none left to come."""
        return len(self.data_out) > sent or not self.unfinished

    @property
    def info(self) -> api_pb2.FunctionCallInfo:
        info = api_pb2.FunctionCallInfo(
            function_call_id=self.call_id, created_at=self.created_at, total_inputs=len(self.inputs)
        )
        started = [i.started_at for i in self.inputs.values() if i.started_at]
        if started:
            info.scheduled_at = min(started)
        for item in self.inputs.values():
            category = getattr(info, _CATEGORY.get(item.status, "failed_inputs"))
            category.total += 1
            category.latest.append(
                message(
                    api_pb2.InputInfo,
                    input_id=item.input_id,
                    idx=item.idx,
                    task_id=item.container_id,
                    started_at=item.started_at,
                    finished_at=item.finished_at,
                )
            )
        return info


_CATEGORY: dict[int, str] = {
    GENERIC_STATUS_PENDING: "pending_inputs",
    api_pb2.GenericResult.GENERIC_STATUS_SUCCESS: "succeeded_inputs",
    api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT: "timeout_inputs",
    api_pb2.GenericResult.GENERIC_STATUS_TERMINATED: "cancelled_inputs",
}
