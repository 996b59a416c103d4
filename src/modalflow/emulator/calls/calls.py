"""Function calls as their callers see them: inputs, outputs, cancellation, status.

Owns the RPCs about calls, and which calls exist. Pools decides which container runs an input, and when it runs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Protocol

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.function_call import FunctionCall, Input
from modalflow.emulator.calls.output_wait import OutputWait
from modalflow.emulator.functions.function import Function
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.rpc.idempotency import CHANGE, READ, Delivery
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional, seconds

#: As on Modal: a result can be fetched for a week (Modal's guide, "Job processing"). Counted, inferred, from the last
#: result of the call.
RESULTS_KEPT = 7 * 24 * 3600.0

#: Inputs of one map that a client may have outstanding: the SDK's ``MAX_INPUTS_OUTSTANDING_DEFAULT``
#: (modal/parallel_map.py), its default.
MAX_INPUTS_OUTSTANDING = 1000


#: Seconds between two answers with outputs of one map, as long as more outputs are to come. The client of a map sends
#: the next request at once, with up to ``MAX_INPUTS_OUTSTANDING`` jwts: one answer for each output would cost both
#: sides more than the rest of the map. The first output after a pause is not held back.
OUTPUTS_GATHERED = 0.05


def _delivers_outputs(request: api_pb2.FunctionGetOutputsRequest, answer: api_pb2.FunctionGetOutputsResponse) -> bool:
    return bool(request.clear_on_success and answer.outputs)


class InputRunner(Protocol):
    """Runs the inputs of calls."""

    def submit(self, *items: Input) -> None: ...

    def running(self, function: Function) -> Iterable[Input]: ...

    def cancel(self, items: Iterable[Input], *, terminate_containers: bool) -> None: ...


class Calls(Service):
    """The RPCs with which clients call functions and follow the calls."""

    def __init__(
        self,
        functions: Functions,
        runner: InputRunner,
        records: CallRecords,
        restored: Iterable[FunctionCall] = (),
        *,
        clock: Callable[[], float] = clock.now,
        rate_limits: bool = False,
    ) -> None:
        """``restored`` are the calls of an earlier control plane.

        With ``rate_limits``, inputs that come faster than Modal accepts them are refused.
        """
        self._functions, self._runner, self._records = functions, runner, records
        self._clock = clock
        self._rate_limits = rate_limits
        self._calls: dict[str, FunctionCall] = {call.call_id: call for call in restored}
        self.forget_expired()

    def get(self, call_id: str) -> FunctionCall:
        call = self._find(call_id)
        if call is None:
            raise GRPCError(Status.NOT_FOUND, f"Function call {call_id!r} not found")
        return call

    def has_unfinished(self, app: App) -> bool:
        """Return whether the app has a call with unfinished inputs."""
        return any(call.unfinished for call in self._calls.values() if call.function.app is app)

    def forget_expired(self) -> None:
        for call in [c for c in self._calls.values() if self._is_expired(c)]:
            del self._calls[call.call_id]
            self._records.forgotten(call)

    def blobs(self) -> set[str]:
        """Return the blobs that hold arguments, results and yielded values."""
        found: set[str] = set()
        for call in self._calls.values():
            found.update(item.content.args_blob_id for item in call.inputs.values() if not item.done)
            found.update(output.result.data_blob_id for output in call.outputs)
            found.update(chunk.data_blob_id for chunk in call.data_out)
        return found

    def _find(self, call_id: str) -> FunctionCall | None:
        call = self._calls.get(call_id)
        return None if call is None or self._is_expired(call) else call

    def _is_expired(self, call: FunctionCall) -> bool:
        return not call.unfinished and max(call.created_at, call.last_result_at) < self._clock() - RESULTS_KEPT

    @rpc(
        repeat=CHANGE,
        inferred=(
            "one idempotency key makes one call, over restarts too; whether the live service deduplicates is not known."
        ),
    )
    async def FunctionMap(self, request: api_pb2.FunctionMapRequest, caller: Caller) -> api_pb2.FunctionMapResponse:
        function = self._functions.get(request.function_id)
        if function.callable_reason:
            raise GRPCError(Status.NOT_FOUND, function.callable_reason)
        self._check_limits(function, request.function_call_invocation_type, len(request.pipelined_inputs))
        call = FunctionCall(
            function=function,
            kind=request.function_call_type,
            invocation=request.function_call_invocation_type,
            parent_input_id=request.parent_input_id,
            observer=self._records,
        )
        self._calls[call.call_id] = call
        self._records.called(call)
        return message(
            api_pb2.FunctionMapResponse,
            function_call_id=call.call_id,
            function_call_jwt=call.call_id,
            pipelined_inputs=self._put(call, request.pipelined_inputs),
            retry_policy=function.spec.retry_policy,
            # The control plane retries: a spawn is retried too, although its caller may be gone.
            sync_client_retries_enabled=False,
            max_inputs_outstanding=MAX_INPUTS_OUTSTANDING,
        )

    @rpc(
        repeat=CHANGE,
        retried_forever=True,
        inferred=(
            "the limits on waiting inputs count per function, or variant with its own options; the words of the errors."
        ),
    )
    async def FunctionPutInputs(
        self, request: api_pb2.FunctionPutInputsRequest, caller: Caller
    ) -> api_pb2.FunctionPutInputsResponse:
        call = self.get(request.function_call_id)
        if call.function.callable_reason:
            raise GRPCError(Status.NOT_FOUND, call.function.callable_reason)
        self._check_limits(call.function, call.invocation, len(request.inputs))
        return api_pb2.FunctionPutInputsResponse(inputs=self._put(call, request.inputs))

    def _check_limits(self, function: Function, invocation: int, more: int) -> None:
        def running() -> Iterable[int]:
            return (item.call.invocation for item in self._runner.running(function))

        if more:
            function.backlog.check(invocation, more, running, rates=self._rate_limits)

    def _put(
        self, call: FunctionCall, items: Iterable[api_pb2.FunctionPutInputsItem]
    ) -> list[api_pb2.FunctionPutInputsResponseItem]:
        put: list[Input] = []
        try:
            for item in items:
                put.append(call.put(item))
            self._runner.submit(*put)
        except BaseException:
            # To the caller, the error means that no input was accepted: cancel those put so far.
            self._runner.cancel(put, terminate_containers=False)
            raise
        return [
            # Short jwts are cheap: the SDK sends those of all outstanding inputs with each FunctionGetOutputs.
            api_pb2.FunctionPutInputsResponseItem(idx=new.idx, input_id=new.input_id, input_jwt=str(new.number))
            for new in put
        ]

    @rpc(repeat=CHANGE, needs_room=False)
    async def FunctionFinishInputs(self, request: api_pb2.FunctionFinishInputsRequest, caller: Caller) -> Empty:
        self.get(request.function_call_id)
        return Empty()

    @rpc(
        repeat=Delivery(_delivers_outputs),
        inferred=(
            "results are kept for seven days after the last result of the call. An input that was running when "
            "the control plane ended runs again, with its full timeout. Outputs of a map that come within 50 ms "
            "of the last answer share the next one."
        ),
    )
    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetOutputsResponse:
        """Wait up to ``timeout`` seconds for outputs. No outputs and no unfinished inputs mean that they expired."""
        call = self._find(request.function_call_id)
        if call is None:
            # The SDK turns this into OutputExpiredError.
            return api_pb2.FunctionGetOutputsResponse()
        after = _place(request.last_entry_id)
        first = optional(request, "start_idx")
        awaited = OutputWait(call, after, first, optional(request, "end_idx"))
        deadline = asyncio.get_running_loop().time() + seconds(request.timeout)
        if await call.changed.until(awaited.is_over, seconds(request.timeout)) and first is None:
            await _gather(call, deadline)
        places = awaited.places()[: request.max_values or None]
        answer = message(
            api_pb2.FunctionGetOutputsResponse,
            idxs=[call.outputs[place].idx for place in places],
            outputs=[call.outputs[place] for place in places],
            last_entry_id=f"{places[-1] + 1 if places else after}-0",
            num_unfinished_inputs=call.unfinished,
        )
        if places:
            call.handed_over_at = asyncio.get_running_loop().time()
        if request.clear_on_success:
            call.clear(places)
        return answer

    @rpc(repeat=CHANGE, needs_room=False)
    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest, caller: Caller) -> Empty:
        call = self.get(request.function_call_id)
        cancelled = [i for i in call.inputs.values() if not i.done]
        self._runner.cancel(cancelled, terminate_containers=bool(optional(request, "terminate_containers")))
        for item in cancelled:
            if not item.done:
                item.save()
        return Empty()

    @rpc(repeat=READ)
    async def FunctionCallGetInfo(
        self, request: api_pb2.FunctionCallGetInfoRequest, caller: Caller
    ) -> api_pb2.FunctionCallGetInfoResponse:
        return api_pb2.FunctionCallGetInfoResponse(info=self.get(request.function_call_id).info)

    @rpc(repeat=READ)
    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest, caller: Caller
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self.get(request.function_call_id)
        answer = api_pb2.FunctionCallFromIdResponse(function_call_id=call.call_id, num_inputs=len(call.inputs))
        # SDKs before 1.6 know no metadata of a call.
        if "metadata" in answer.DESCRIPTOR.fields_by_name:
            answer.metadata.function_id = call.function.object_id
            answer.metadata.app_id = call.function.app.app_id
        return answer

    @rpc(repeat=READ)
    async def FunctionCallList(
        self, request: api_pb2.FunctionCallListRequest, caller: Caller
    ) -> api_pb2.FunctionCallListResponse:
        return api_pb2.FunctionCallListResponse(
            function_calls=[c.info for c in self._calls.values() if c.function.object_id == request.function_id]
        )

    @rpc(repeat=READ)
    async def FunctionGetCallGraph(
        self, request: api_pb2.FunctionGetCallGraphRequest, caller: Caller
    ) -> api_pb2.FunctionGetCallGraphResponse:
        answer = api_pb2.FunctionGetCallGraphResponse()
        queue = [self.get(request.function_call_id)]
        children: dict[str, list[FunctionCall]] = {}
        for call in self._calls.values():
            if call.parent_input_id:
                children.setdefault(call.parent_input_id, []).append(call)
        while queue:
            call = queue.pop()
            answer.function_calls.add(
                function_call_id=call.call_id,
                parent_input_id=call.parent_input_id,
                function_name=call.function.tag,
                module_name=call.function.spec.module_name,
            )
            for item in call.inputs.values():
                answer.inputs.add(
                    input_id=item.input_id,
                    status=item.status,
                    function_call_id=call.call_id,
                    task_id=item.container_id,
                )
                queue += children.get(item.input_id, ())
        return answer

    @rpc(
        repeat=CHANGE,
        inferred="a generator that runs again after the loss of its container yields each value once to its client.",
    )
    async def FunctionCallPutDataOut(self, request: api_pb2.FunctionCallPutDataRequest, caller: Caller) -> Empty:
        """Add the chunks that a generator yields, from the container that runs it.

        Chunks from another container are dropped, as results are: the input was taken from it, or it never had it.
        """
        if caller.container_id is None:
            raise GRPCError(Status.PERMISSION_DENIED, "Only a container may call this")
        call = self.get(request.function_call_id)
        if any(item.container_id == caller.container_id and not item.done for item in call.inputs.values()):
            call.yielded(request.data_chunks)
        return Empty()

    @rpc(repeat=READ)
    async def FunctionCallGetDataOut(
        self, request: api_pb2.FunctionCallGetDataRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.DataChunk]:
        """Stream the chunks of a generator until the last one."""
        call = self.get(request.function_call_id)
        sent = 0
        while True:
            over = not call.unfinished
            for chunk in call.data_out[sent:]:
                sent += 1
                if chunk.index > request.last_index:
                    yield chunk
            if over:
                return
            await call.changed.until(partial(call.has_news, sent), 60.0)


async def _gather(call: FunctionCall, deadline: float) -> None:
    """Wait for further outputs if a client got some a moment ago, until ``deadline`` at most."""
    until = min(call.handed_over_at + OUTPUTS_GATHERED, deadline)
    remaining = until - asyncio.get_running_loop().time()
    if remaining > 0:
        await call.over.until(lambda: not call.unfinished, remaining)


def _place(entry_id: str) -> int:
    """Return how many outputs a client has, from its ``last_entry_id``."""
    number = entry_id.partition("-")[0] or "0"
    if not (number.isascii() and number.isdecimal()):
        raise GRPCError(Status.INVALID_ARGUMENT, f"last_entry_id is {entry_id!r}; expected one of an earlier answer")
    return int(number)
