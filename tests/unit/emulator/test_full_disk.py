"""Which RPCs go on while the disk is full, and how the others are refused."""

from __future__ import annotations

import pytest
from grpclib import Status
from modal_proto import api_pb2

from modalflow.emulator.rpc.full_disk import ENDING, ENDLESS, lookup, needs_room, refused
from modalflow.emulator.rpc.repeats import ANEW, CHANGES, DELIVERIES, READS
from modalflow.emulator.state.disk_space import SMALL

ANY = api_pb2.ClientHelloResponse()
SUCCESS, FAILURE = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, api_pb2.GenericResult.GENERIC_STATUS_FAILURE


def test_what_goes_on_are_changes_that_exist() -> None:
    """A name in the table is one of an RPC that changes something: no misspelt one does nothing."""
    assert ENDING | ENDLESS <= CHANGES


@pytest.mark.parametrize("name", sorted({*READS, *ANEW, *DELIVERIES, *ENDING}))
def test_reads_and_ends_need_no_room(name: str) -> None:
    """They are carried out however full the disk is."""
    assert not needs_room(name, ANY)


@pytest.mark.parametrize("name", ["DictUpdate", "QueuePut", "FunctionMap", "FunctionCreate", "VolumePutFiles2"])
def test_what_adds_something_needs_room(name: str) -> None:
    """They are refused before they have changed anything."""
    assert needs_room(name, ANY)


@pytest.mark.parametrize(
    ("status", "size", "refusable"), [(SUCCESS, 10, False), (SUCCESS, 2 * SMALL, True), (FAILURE, 2 * SMALL, False)]
)
def test_results_that_fit_are_taken(status: int, size: int, refusable: bool) -> None:
    """A small result, and any failure, ends its call; a large result makes a failure of it."""
    result = api_pb2.GenericResult(status=status, data=b"x" * size)  # type: ignore[arg-type]
    request = api_pb2.FunctionPutOutputsRequest(outputs=[api_pb2.FunctionPutOutputsItem(result=result)])
    assert needs_room("FunctionPutOutputs", request) is refusable


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_nothing_waits_without_a_word(name: str) -> None:
    """Where the SDK repeats a call without end if a resource is exhausted, it gets an error that it shows."""
    assert refused(name, ANY, "why").status is Status.FAILED_PRECONDITION


def test_a_refusal_is_one_of_exhausted_resources() -> None:
    """Any other call ends at once with ResourceExhaustedError and the words."""
    error = refused("DictUpdate", None, "why")
    assert (error.status, error.message) == (Status.RESOURCE_EXHAUSTED, "why")
    assert refused("FunctionMap", api_pb2.FunctionMapRequest(), "why").status is Status.RESOURCE_EXHAUSTED
    endless = api_pb2.FunctionMapRequest(from_spawn_map=True)
    assert refused("FunctionMap", endless, "why").status is Status.FAILED_PRECONDITION


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
