"""What the handlers declare about their RPCs: what a repeated call gets, and which calls a full disk refuses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

import modalflow.emulator
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.rpc.handlers import Handlers, rpc_table
from modalflow.emulator.rpc.idempotency import READ, Anew, Change, Delivery, Read
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.state.disk_space import SMALL
from tests.sdk import needs_sdk

SUCCESS, FAILURE = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, api_pb2.GenericResult.GENERIC_STATUS_FAILURE


@pytest.fixture(scope="module")
def handlers() -> Iterator[Handlers]:
    """The handlers of a control plane that was not started."""
    control_plane = ControlPlane(Options(), isolation=Isolation.PLAIN)
    yield control_plane.parts.front.handlers
    control_plane.release()


def methods_named_as_rpcs() -> Iterator[tuple[str, list[str]]]:
    """Every method of the source whose name looks like that of an RPC, with its decorators."""
    for path in Path(modalflow.emulator.__file__).parent.rglob("*.py"):
        for made in ast.walk(ast.parse(path.read_text())):
            if isinstance(made, ast.ClassDef):
                for each in made.body:
                    if isinstance(each, ast.AsyncFunctionDef) and each.name[0].isupper():
                        yield each.name, [ast.unparse(one).partition("(")[0] for one in each.decorator_list]


@needs_sdk("1.6")
def test_every_handler_is_declared() -> None:
    """A handler without `@rpc`, or with the name of no RPC, is a mistake."""
    found = dict(methods_named_as_rpcs())
    assert [name for name, decorators in found.items() if decorators != ["rpc"]] == []
    assert sorted(found.keys() - rpc_table().keys()) == []


def test_every_rpc_has_a_class_of_repeats(handlers: Handlers) -> None:
    """Of each RPC that is answered here it is declared what a repeated call gets; a stream is read anew."""
    for name in handlers.implemented:
        handler = handlers.find(name)
        assert handler is not None
        assert isinstance(handler.declaration.repeat, Change | Read | Anew | Delivery), name
        assert not handler.is_stream or handler.declaration.repeat == READ, name


def test_an_undeclared_handler_is_refused() -> None:
    """A control plane with such a handler does not start."""

    class Forgetful(Service):
        async def AppList(self, request: api_pb2.AppListRequest, caller: Caller) -> api_pb2.AppListResponse:
            return api_pb2.AppListResponse()

    with pytest.raises(ValueError, match="AppList declares nothing"):
        Handlers([Forgetful()])


def test_two_handlers_of_one_rpc_are_refused() -> None:
    """No RPC is answered by two services."""

    class Listing(Service):
        @rpc(repeat=READ)
        async def EnvironmentList(self, request: Empty, caller: Caller) -> api_pb2.EnvironmentListResponse:
            return api_pb2.EnvironmentListResponse()

    with pytest.raises(ValueError, match="two services answer EnvironmentList"):
        Handlers([Listing(), Listing()])


def test_only_changes_need_room(handlers: Handlers) -> None:
    """Reads, heartbeats and deliveries are carried out however full the disk is."""
    for name in handlers.implemented:
        handler = handlers.find(name)
        assert handler is not None
        assert isinstance(handler.declaration.repeat, Change) or not handler.declaration.room, name


ENDS_OR_FREES = {
    *("AppClientDisconnect", "AppStop", "ContainerStop", "EnvironmentDelete", "FunctionCallCancel", "TaskResult"),
    "TunnelStop",
    *("DictClear", "DictDelete", "DictPop", "QueueClear", "QueueDelete", "SecretDelete", "FunctionFinishInputs"),
    *("ImageDelete", "ImageNameDelete", "VolumeDelete", "VolumeReload", "VolumeRemoveFile", "VolumeRemoveFile2"),
}


def test_every_other_change_needs_room(handlers: Handlers) -> None:
    """A change is refused before it has changed anything, unless it ends or frees something."""
    without = []
    for name in handlers.implemented - {"FunctionPutOutputs"}:
        handler = handlers.find(name)
        assert handler is not None
        if isinstance(handler.declaration.repeat, Change) and not handler.declaration.needs_room(Empty()):
            without.append(name)
    assert sorted(without) == sorted(ENDS_OR_FREES & handlers.implemented)


@pytest.mark.parametrize(
    ("status", "size", "refusable"), [(SUCCESS, 10, False), (SUCCESS, 2 * SMALL, True), (FAILURE, 2 * SMALL, False)]
)
def test_results_that_fit_are_accepted(handlers: Handlers, status: int, size: int, refusable: bool) -> None:
    """A small result, and any failure, ends its call; a large result becomes a failure."""
    result = api_pb2.GenericResult(status=status, data=b"x" * size)  # type: ignore[arg-type]
    request = api_pb2.FunctionPutOutputsRequest(outputs=[api_pb2.FunctionPutOutputsItem(result=result)])
    handler = handlers.find("FunctionPutOutputs")
    assert handler is not None
    assert handler.declaration.needs_room(request) is refusable


@pytest.mark.parametrize("name", ["FunctionPutInputs", "FunctionPutOutputs", "QueuePut"])
def test_retries_without_end_are_declared(handlers: Handlers, name: str) -> None:
    """The SDK repeats these RPCs silently and without end if a resource is exhausted."""
    handler = handlers.find(name)
    assert handler is not None
    assert handler.declaration.retried_forever
