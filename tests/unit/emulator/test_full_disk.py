"""How a call is refused that the full disk has no room for."""

from __future__ import annotations

from grpclib import Status
from modal_proto import api_pb2

from modalflow.emulator.rpc.full_disk import lookup, refused


def test_a_refusal_is_raised_at_once() -> None:
    """The call fails with ResourceExhaustedError and the words; with another status if the SDK would retry forever."""
    error = refused("why", None, retried_forever=False)
    assert (error.status, error.message) == (Status.RESOURCE_EXHAUSTED, "why")
    assert refused("why", None, retried_forever=True).status is Status.FAILED_PRECONDITION
    request = api_pb2.FunctionMapRequest()
    assert refused("why", request, retried_forever=False).status is Status.RESOURCE_EXHAUSTED
    endless = api_pb2.FunctionMapRequest(from_spawn_map=True)
    assert refused("why", endless, retried_forever=False).status is Status.FAILED_PRECONDITION


def test_objects_that_exist_are_found() -> None:
    """Who would make an object if there were none gets the one that there is; who would replace it is refused."""
    wanted = api_pb2.DictGetOrCreateRequest(
        deployment_name="d", object_creation_type=api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
    )
    assert lookup(wanted) == api_pb2.DictGetOrCreateRequest(deployment_name="d")
    for creation in (
        api_pb2.OBJECT_CREATION_TYPE_EPHEMERAL,
        api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS,
        api_pb2.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS,
    ):
        assert lookup(api_pb2.DictGetOrCreateRequest(deployment_name="d", object_creation_type=creation)) is None
    assert lookup(api_pb2.DictUpdateRequest(dict_id="di-1")) is None
