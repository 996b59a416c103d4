"""The RPCs of the container runtime, and those that inspect containers.

Owns the translation between the protocol and pools.py. All decisions are made there.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.launch import hints
from modalflow.emulator.containers.launch.snapshots import Snapshots
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.definitions.definition_check import refuse_unsupported
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.rpc.idempotency import CHANGE, READ, Anew, Delivery
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.disk_space import SMALL
from modalflow.emulator.volumes.volumes import Volumes

#: The number of seconds a heartbeat is held. The runtime gives up after 15.1 s and sends the next one 15 s after the
#: last. A cancellation may therefore have to wait for one second.
HEARTBEAT_HELD = 14.0

#: Seconds between two checks of a lingering batch.
LINGER_STEP = 0.01


def _delivers_inputs(_request: Message, answer: api_pb2.FunctionGetInputsResponse) -> bool:
    return bool(answer.inputs)


def _is_large_result(request: api_pb2.FunctionPutOutputsRequest) -> bool:
    """Return whether a full disk must refuse a result: the container then reports a small failure instead."""
    succeeded = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
    return request.ByteSize() > SMALL and any(o.result.status == succeeded for o in request.outputs)


class Runtime(Service):
    """The RPCs for containers."""

    def __init__(
        self, environments: Environments, functions: Functions, pools: Pools, volumes: Volumes, snapshots: Snapshots
    ) -> None:
        self._environments, self._functions, self._pools, self._volumes = environments, functions, pools, volumes
        self._snapshots = snapshots

    def _container(self, caller: Caller) -> Container:
        container = self._pools.container(caller.container_id)
        if container is None:
            raise GRPCError(Status.PERMISSION_DENIED, "Only a container may call this")
        return container

    @rpc(repeat=READ)
    async def ContainerHello(self, request: Empty, caller: Caller) -> Empty:
        container = self._container(caller)
        container.last_heard = time.monotonic()
        container.on_hello()
        return Empty()

    @rpc(
        repeat=READ,
        inferred=(
            "gVisor writes the container to a file once its connections are closed, and restores it from there. If "
            "that fails, the container starts again without a snapshot."
        ),
    )
    async def ContainerCheckpoint(self, request: api_pb2.ContainerCheckpointRequest, caller: Caller) -> Empty:
        self._snapshots.request(self._container(caller))
        return Empty()

    @rpc(
        repeat=Anew("it is held until there is an event, and repeated until the container acts on it"),
        inferred="held until there is something to cancel, at most 14 s.",
    )
    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest, caller: Caller
    ) -> api_pb2.ContainerHeartbeatResponse:
        """Answer as soon as there is an input to cancel, or after a while."""
        container = self._container(caller)
        container.last_heard = time.monotonic()
        await container.changes.until(lambda: container.has_cancellations, HEARTBEAT_HELD)
        container.last_heard = time.monotonic()
        cancelled = container.cancellations()
        if not cancelled:
            return api_pb2.ContainerHeartbeatResponse()
        return api_pb2.ContainerHeartbeatResponse(cancel_input_event=api_pb2.CancelInputEvent(input_ids=cancelled))

    @rpc(repeat=Delivery(_delivers_inputs))
    async def FunctionGetInputs(
        self, request: api_pb2.FunctionGetInputsRequest, caller: Caller
    ) -> api_pb2.FunctionGetInputsResponse:
        """Wait until there is an input, or until the container should end."""
        container = self._container(caller)
        ask = container.ask(max(request.batch_max_size, 1))
        items: list[Input] | None = None
        try:
            self._pools.asked(container)
            items = await ask.answer
            if items and request.batch_max_size > 1:
                await self._linger(container, items, request.batch_max_size, request.batch_linger_ms / 1000)
        except BaseException:
            # The connection is gone, or the call failed: the inputs did not arrive, and the container waits for no
            # more.
            if ask.answer.done() and not ask.answer.cancelled():
                self._pools.returned(container, items or ask.answer.result() or ())
            ask.answer.cancel()
            raise
        if items is None:
            return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
        return api_pb2.FunctionGetInputsResponse(inputs=[_delivered(item) for item in items])

    async def _linger(self, container: Container, items: list[Input], size: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(items) < size:
            items += self._pools.take_more(container, size - len(items))
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(LINGER_STEP)

    @rpc(repeat=READ, inferred="the target is the answer: no load is measured.")
    async def FunctionGetDynamicConcurrency(
        self, request: api_pb2.FunctionGetDynamicConcurrencyRequest, caller: Caller
    ) -> api_pb2.FunctionGetDynamicConcurrencyResponse:
        """Return the target number of inputs in the container; more containers run the rest."""
        return api_pb2.FunctionGetDynamicConcurrencyResponse(concurrency=request.target_concurrency)

    @rpc(repeat=CHANGE, needs_room=_is_large_result, retried_forever=True)
    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest, caller: Caller) -> Empty:
        container = self._container(caller)
        if container.process is not None:
            # A client with the result can then read all output before it.
            container.process.drain()
        for output in request.outputs:
            item = container.inputs.get(output.input_id)
            if item is None or item.retries != output.retry_count:
                continue
            result = hints.explained(output.result, container.missing)
            self._pools.put(container, item, result, output.data_format)
        self._volumes.commit_soon(container.container_id)
        return Empty()

    @rpc(
        repeat=CHANGE,
        needs_room=False,
        inferred=(
            "if three containers in succession end before they accept an input, the waiting inputs fail; also for a "
            "deployed app, although Modal would continue trying."
        ),
    )
    async def TaskResult(self, request: api_pb2.TaskResultRequest, caller: Caller) -> Empty:
        """Handle a container's failure to import or enter the user's code, or to leave it."""
        container = self._container(caller)
        if container.state is State.STARTING:
            container.start_failure = hints.explained(request.result, container.missing)
        return Empty()

    @rpc(
        repeat=CHANGE,
        needs_room=False,
        inferred="the container's inputs are started again in another one, as the same inputs.",
    )
    async def ContainerStop(
        self, request: api_pb2.ContainerStopRequest, caller: Caller
    ) -> api_pb2.ContainerStopResponse:
        container = self._pools.container(request.task_id)
        if container is None:
            raise GRPCError(Status.NOT_FOUND, f"Container {request.task_id!r} not found")
        self._pools.stop_container(container, graceful=bool(optional(request, "graceful")))
        return api_pb2.ContainerStopResponse()

    @rpc(repeat=READ)
    async def TaskList(self, request: api_pb2.TaskListRequest, caller: Caller) -> api_pb2.TaskListResponse:
        environment = self._environments.resolve(request.environment_name)
        app_id = optional(request, "app_id")
        return api_pb2.TaskListResponse(
            tasks=[
                message(
                    api_pb2.TaskStats,
                    task_id=c.container_id,
                    app_id=c.function.app.app_id,
                    app_description=c.function.app.description,
                    started_at=c.started_at,
                    enqueued_at=c.enqueued_at,
                )
                for c in self._pools.live()
                if (c.function.app.app_id == app_id if app_id else c.function.app.environment == environment)
            ]
        )

    @rpc(repeat=READ)
    async def TaskGetInfo(self, request: api_pb2.TaskGetInfoRequest, caller: Caller) -> api_pb2.TaskGetInfoResponse:
        container = self._pools.container(request.task_id)
        if container is None:
            raise GRPCError(Status.NOT_FOUND, f"Container {request.task_id!r} not found")
        return message(
            api_pb2.TaskGetInfoResponse,
            app_id=container.function.app.app_id,
            info=message(
                api_pb2.TaskInfo,
                id=container.container_id,
                started_at=container.started_at,
                finished_at=container.finished_at,
                enqueued_at=container.enqueued_at,
            ),
        )

    @rpc(repeat=READ)
    async def FunctionGetCurrentStats(
        self, request: api_pb2.FunctionGetCurrentStatsRequest, caller: Caller
    ) -> api_pb2.FunctionStats:
        pool = self._pools.pool(self._functions.get(request.function_id))
        return message(
            api_pb2.FunctionStats,
            backlog=len(pool.pending),
            num_total_tasks=len(pool.containers),
            num_running_inputs=sum(len(c.inputs) for c in pool.containers.values()),
            input_headroom=sum(c.free for c in pool.current),
        )

    @rpc(repeat=CHANGE)
    async def FunctionUpdateSchedulingParams(
        self, request: api_pb2.FunctionUpdateSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionUpdateSchedulingParamsResponse:
        refuse_unsupported(request)
        function = self._functions.get(request.function_id)
        function.rescale(request.settings)
        self._functions.save(function)
        self._pools.rescale(function)
        return message(
            api_pb2.FunctionUpdateSchedulingParamsResponse,
            current_settings=self._pools.scaling(function).settings,
        )


def _delivered(item: Input) -> api_pb2.FunctionGetInputsItem:
    return message(
        api_pb2.FunctionGetInputsItem,
        input_id=item.input_id,
        input=item.content,
        function_call_id=item.call.call_id,
        function_call_invocation_type=item.call.invocation,
        retry_count=item.retries,
        function_map_idx=item.idx,
    )
