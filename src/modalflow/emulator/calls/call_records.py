"""The records of function calls: one for each call, one for each input, one for each result.

Owns their form. The progress of a map is never written as a whole: an input is written when it comes, and again without
its content when it is done, with its result beside it. The coming, going and heartbeats of containers write nothing.

An input that ran when the control plane ended is restored as a waiting one, with its used tries: it is not to blame for
the end of its container. Modal treats the inputs of a preempted container in the same way. A cancelled input that had
not ended is restored with that ending. One that was out of time is not: its time counts from its new start (inferred).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from modal_proto import api_pb2

from modalflow.emulator.calls.function_call import CLEARED, NO_CONTENT, FunctionCall, Input
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.state.journal import Journal

#: The status in ``Input.ending`` of an input that was cancelled.
_CANCELLED = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED


@dataclass(frozen=True)
class RestoredCalls:
    """The calls of an earlier control plane."""

    calls: list[FunctionCall]
    waiting: list[Input]
    """The inputs to run, oldest first, over all calls."""


class CallRecords:
    """Records calls in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._calls = journal.table("calls", _encode_call)
        self._inputs = journal.table("inputs", _encode_input)
        self._outputs = journal.table("outputs", api_pb2.FunctionGetOutputsItem.SerializeToString)
        self._chunks = journal.table("chunks", api_pb2.DataChunk.SerializeToString)

    def called(self, call: FunctionCall) -> None:
        self._calls.put("", call.call_id, call)

    def changed(self, item: Input) -> None:
        # Not under its id: ids are random, and would spread the progress of a map over all pages of the file.
        self._inputs.put(item.call.call_id, _key(item.number), item)

    def resolved(self, item: Input) -> None:
        self.changed(item)
        self._outputs.put(item.call.call_id, _key(item.place), item.call.outputs[item.place])

    def yielded(self, call: FunctionCall, chunk: api_pb2.DataChunk) -> None:
        self._chunks.put(call.call_id, _key(chunk.index), chunk)

    def cleared(self, call: FunctionCall, places: Collection[int]) -> None:
        if len(call.cleared) == len(call.outputs):
            # At the end of a map the SDK clears all outputs at once.
            self._outputs.discard_all(call.call_id)
            return
        for place in places:
            self._outputs.discard(call.call_id, _key(place))

    def forgotten(self, call: FunctionCall) -> None:
        self._forget(call.call_id)

    def load(self, functions: Functions) -> RestoredCalls:
        """Return the calls of an earlier control plane. A call whose function is gone is dropped."""
        calls = self._load_calls(functions)
        waiting: list[Input] = []
        for call_id, _, body in self._inputs.load():
            if call_id in calls:
                item = _restore_input(calls[call_id], body)
                if not item.done:
                    waiting.append(item)
        outputs: dict[str, dict[int, bytes]] = {}
        for call_id, key, body in self._outputs.load():
            outputs.setdefault(call_id, {})[int.from_bytes(key)] = body
        for call in calls.values():
            _restore_outputs(call, outputs.pop(call.call_id, {}))
        for call_id, _, body in self._chunks.load():
            if call_id in calls:
                calls[call_id].data_out.append(api_pb2.DataChunk.FromString(body))
        return RestoredCalls(list(calls.values()), waiting)

    def _load_calls(self, functions: Functions) -> dict[str, FunctionCall]:
        calls: dict[str, FunctionCall] = {}
        gone: list[str] = []
        for _, call_id, body in self._calls.load():
            found = functions.find(body["function_id"])
            if found is None:
                gone.append(call_id)
                continue
            calls[call_id] = FunctionCall(
                function=found,
                call_id=call_id,
                kind=body["kind"],
                invocation=body["invocation"],
                parent_input_id=body["parent_input_id"],
                created_at=body["created_at"],
                observer=self,
            )
        for call_id in gone:
            self._forget(call_id)
        return calls

    def _forget(self, call_id: str) -> None:
        self._calls.discard("", call_id)
        for table in (self._inputs, self._outputs, self._chunks):
            table.discard_all(call_id)


def _key(number: int) -> bytes:
    return number.to_bytes(8)


def _encode_call(call: FunctionCall) -> dict[str, Any]:
    return {
        "function_id": call.function.object_id,
        "kind": call.kind,
        "invocation": call.invocation,
        "parent_input_id": call.parent_input_id,
        "created_at": call.created_at,
    }


def _encode_input(item: Input) -> dict[str, Any]:
    kept: dict[str, Any] = {"id": item.input_id, "idx": item.idx, "retries": item.retries, "crashes": item.crashes}
    if item.done:
        return kept | {
            "place": item.place,
            "status": item.status,
            "container_id": item.container_id,
            "started_at": item.started_at,
            "finished_at": item.finished_at,
        }
    kept["content"] = item.content.SerializeToString()
    if item.ending is not None and item.ending.status == _CANCELLED:
        kept["ending"] = item.ending.SerializeToString()
    return kept


def _restore_input(call: FunctionCall, body: dict[str, Any]) -> Input:
    item = Input(
        call,
        body["idx"],
        api_pb2.FunctionInput.FromString(body["content"]) if "content" in body else NO_CONTENT,
        len(call.inputs),
        input_id=body["id"],
        retries=body["retries"],
        crashes=body["crashes"],
    )
    if "ending" in body:
        item.ending = api_pb2.GenericResult.FromString(body["ending"])
    if "place" in body:
        item.done = True
        item.place, item.status, item.container_id = body["place"], body["status"], body["container_id"]
        item.started_at, item.finished_at = body["started_at"], body["finished_at"]
        call.last_result_at = max(call.last_result_at, item.finished_at)
    else:
        call.count(1)
    call.add(item)
    return item


def _restore_outputs(call: FunctionCall, found: dict[int, bytes]) -> None:
    """Put every result in its place; a missing one was cleared."""
    for item in sorted((i for i in call.inputs.values() if i.done), key=lambda i: i.place):
        if item.place in found:
            output = api_pb2.FunctionGetOutputsItem.FromString(found.pop(item.place))
        else:
            output = CLEARED
            call.cleared.add(item.place)
        call.outputs.append(output)
