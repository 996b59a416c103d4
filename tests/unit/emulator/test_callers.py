"""Who may call what: a container acts on its own inputs, and with its workspace's rights on everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.unit.emulator.target import Target


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def test_a_container_gives_results_for_its_own_inputs_only(target: Target) -> None:
    """Results, yielded values and commits of one container's for what another one runs are without effect."""
    input_id, call_id = target.known["input_id"][0], target.known["function_call_id"][0]
    volume_id = target.known["volume_id"][0]
    result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, data=b"x")
    outputs = api_pb2.FunctionPutOutputsRequest(
        outputs=[api_pb2.FunctionPutOutputsItem(input_id=input_id, result=result)]
    )
    chunk = api_pb2.DataChunk(data=b"x", index=1)
    yielded = api_pb2.FunctionCallPutDataRequest(function_call_id=call_id, data_chunks=[chunk])

    async def scene() -> None:
        function = api_pb2.Function(module_name="m", function_name="g", timeout_secs=300)
        made = await target.call("FunctionCreate", app_id=target.known["app_id"][0], function=function)
        functions = {"f": target.known["function_id"][0], "g": made.function_id}
        published = {"name": "a name", "app_state": api_pb2.APP_STATE_DEPLOYED, "function_ids": functions}
        await target.call("AppPublish", app_id=target.known["app_id"][0], **published)
        inputs = [api_pb2.FunctionPutInputsItem(idx=0, input=api_pb2.FunctionInput(args=b"y"))]
        await target.call("FunctionMap", function_id=made.function_id, pipelined_inputs=inputs)
        _, stranger = await target.next_container()
        call = target.plane.parts.execution.calls.get(call_id)

        await stranger.FunctionPutOutputs(outputs)
        await stranger.FunctionCallPutDataOut(yielded)
        assert call.unfinished == 1
        assert call.data_out == []
        got = await stranger.FunctionGetInputs(
            api_pb2.FunctionGetInputsRequest(function_id=target.known["function_id"][0])
        )
        assert [item.input.args for item in got.inputs] == [b"y"]
        with pytest.raises(GRPCError) as refused:
            await stranger.VolumeCommit(api_pb2.VolumeCommitRequest(volume_id=volume_id))
        assert refused.value.status is Status.FAILED_PRECONDITION

        await target.container.FunctionCallPutDataOut(yielded)
        await target.container.FunctionPutOutputs(outputs)
        assert call.unfinished == 0
        assert len(call.data_out) == 1

    target.loop.run_until_complete(scene())


def test_a_client_cannot_pass_for_a_container(target: Target) -> None:
    """The RPCs of the container runtime are refused to whoever does not come through a container's door."""
    refused = {
        "ContainerHello": {},
        "ContainerHeartbeat": {},
        "FunctionGetInputs": {},
        "FunctionPutOutputs": {},
        "FunctionCallPutDataOut": {"function_call_id": target.known["function_call_id"][0]},
        "TaskResult": {},
    }

    async def status_of(rpc: str, fields: dict[str, Any]) -> Status | None:
        try:
            await target.call(rpc, **fields)
        except GRPCError as error:
            return error.status
        return None

    for rpc, fields in refused.items():
        assert target.loop.run_until_complete(status_of(rpc, fields)) is Status.PERMISSION_DENIED, rpc


def test_every_rpc_asks_for_a_token(target: Target) -> None:
    """Without a token, or with a wrong one, each RPC of Modal's protocol is UNAUTHENTICATED, known here or not."""
    right = target.plane.parts.base.credentials
    for metadata in (
        {},
        {"x-modal-token-id": right.token_id},
        {"x-modal-token-id": right.token_id, "x-modal-token-secret": "as-guess"},
        {"x-modal-token-id": "ak-guess", "x-modal-token-secret": right.token_secret},
    ):
        with pytest.raises(GRPCError) as refused:
            right.check(metadata, None)
        assert refused.value.status is Status.UNAUTHENTICATED
    target.forget_token()
    for name in target.plane.parts.front.handlers.implemented:
        request = target.request(name)
        assert target.send(name, request, as_container=False, patience=30.0) is Status.UNAUTHENTICATED, name
