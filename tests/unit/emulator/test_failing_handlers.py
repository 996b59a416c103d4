"""Whatever fails behind an RPC, its caller gets an error at once, and the same call works when the fault is gone."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib import GRPCError, Status
from grpclib.const import Cardinality
from modal_proto import api_pb2

from modalflow.emulator.containers.container import Container
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.images import images
from modalflow.emulator.images.builder import Builder
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.rpc import failures
from modalflow.emulator.rpc.handlers import rpc_table
from modalflow.emulator.rpc.service import Caller
from tests.unit.emulator.target import SERVICE, Target

#: Seconds for an error to arrive: milliseconds on a quiet machine, and far less than the 55 s of a held call.
AT_ONCE = 15.0

SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE


class Speechless(Exception):
    """An exception whose own text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


FAULTS = {
    "an exception": ValueError("No closing quotation"),
    "a bug": AttributeError("'NoneType' object has no attribute 'x'"),
    "an exit": SystemExit(3),
    "a closed generator": GeneratorExit(),
    "a cancelled future": asyncio.CancelledError(),
    "no memory": MemoryError(),
    "a timeout": TimeoutError(),
    "a name that is not UTF-8": OSError(2, "No such file", "/data/\udce9"),
    "a long text": ValueError("x" * 1_000_000),
    "another alphabet": ValueError("\U0001f600" * 20_000),
    "no text": Speechless(),
    "several": BaseExceptionGroup("both", [SystemExit(1), ValueError("x")]),
    "a status with a long text": GRPCError(Status.NOT_FOUND, "y\n\0\udce9" * 100_000),
}

#: The kinds of fault that are tried in every handler; the others are tried in one handler of each kind.
IN_EACH_HANDLER = {"an exception", "an exit", "a cancelled future"}
A_FEW = {"AppCreate", "AppList", "FunctionGetOutputs", "AppGetLogs", "ImageJoinStreaming", "ContainerHeartbeat"}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def _is_stream(name: str) -> bool:
    return rpc_table()[name] in (Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM)


def _raising(name: str, error: BaseException | None) -> Callable[..., Any]:
    async def unary(_request: Any, _caller: Any) -> Any:
        assert error is not None
        raise error

    async def stream(_request: Any, _caller: Any) -> AsyncIterator[Any]:
        if error is not None:
            raise error
        yield error

    return stream if _is_stream(name) else unary


def _assert_fails_at_once(target: Target, name: str) -> str:
    began = time.monotonic()
    status = target.send(name, target.request(name), as_container=False, patience=AT_ONCE)
    assert status in (failures.FAILED, Status.NOT_FOUND), f"{name}: {status}"
    assert time.monotonic() - began < AT_ONCE
    return target.said


@pytest.mark.parametrize("fault", FAULTS)
def test_each_handler_that_raises_is_an_error_at_once(
    target: Target, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """No kind of exception, in no handler, leaves a caller without an answer, and none ends the server."""
    for name in sorted(target.plane.parts.front.handlers.implemented if fault in IN_EACH_HANDLER else A_FEW):
        with monkeypatch.context() as broken:
            _replace(broken, target, name, _raising(name, FAULTS[fault]))
            said = _assert_fails_at_once(target, name)
            assert 0 < len(said.encode()) <= failures.LONGEST_MESSAGE
    assert target.send("EnvironmentList", target.request("EnvironmentList"), as_container=False) is Status.OK


def test_an_error_names_the_rpc_and_the_reason(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller reads says what failed, and the SDK does not send the call again."""
    _replace(monkeypatch, target, "AppList", _raising("AppList", ValueError("why")))
    assert _assert_fails_at_once(target, "AppList") == "AppList failed in the local control plane: ValueError: why"


def test_an_answer_that_cannot_be_encoded_is_an_error(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of the wrong type, or none, is a failure of the handler's."""
    for name in sorted(target.plane.parts.front.handlers.implemented):
        for wrong in (None, "text", api_pb2.GenericResult()):

            async def unary(_request: Any, _caller: Any, wrong: Any = wrong) -> Any:
                return wrong

            async def stream(_request: Any, _caller: Any, wrong: Any = wrong) -> AsyncIterator[Any]:
                yield wrong

            with monkeypatch.context() as broken:
                handler = stream if _is_stream(name) else unary
                _replace(broken, target, name, handler)
                _assert_fails_at_once(target, name)


def test_a_stream_that_fails_half_way_is_an_error(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first message as well, and the handler's generator is closed."""
    closed: list[str] = []
    for name in sorted(filter(_is_stream, target.plane.parts.front.handlers.implemented)):

        async def half(_request: Any, _caller: Any, name: str = name) -> AsyncIterator[Message]:
            try:
                yield _empty_answer(name)
                raise SystemExit("half-way")
            finally:
                closed.append(name)

        with monkeypatch.context() as broken:
            _replace(broken, target, name, half)
            assert "half-way" in _assert_fails_at_once(target, name)
        assert closed[-1:] == [name]


def _replace(patch: pytest.MonkeyPatch, target: Target, name: str, method: Callable[..., Any]) -> None:
    handlers = target.plane.parts.front.handlers._by_name
    patch.setitem(handlers, name, dataclasses.replace(handlers[name], method=method))


def _empty_answer(name: str) -> Message:
    made: Message = GetMessageClass(SERVICE.methods_by_name[name].output_type)()
    return made


def image_request(target: Target, text: str, **fields: Any) -> dict[str, Any]:
    image = api_pb2.Image(dockerfile_commands=["FROM base", text], **fields)
    base = image.base_images.add(docker_tag="base")
    base.image_id = target.known["image_id"][0]
    return {"app_id": target.known["app_id"][0], "image": image}


async def built(target: Target, **request: Any) -> Any:
    """What becomes of an image, as the SDK waits for it."""
    answer = await target.call("ImageGetOrCreate", **request)
    if answer.result.status:
        return answer.result
    join = api_pb2.ImageJoinStreamingRequest(image_id=answer.image_id, timeout=55)
    async with asyncio.timeout(AT_ONCE):
        async with target.client.ImageJoinStreaming.open(metadata=target._token) as stream:
            await stream.send_message(join, end=True)
            async for said in stream:
                if said.result.status:
                    return said.result
    raise AssertionError("the build's log ended without a result")


@pytest.mark.parametrize("fault", [f for f in FAULTS if "status" not in f])
@pytest.mark.parametrize("broken", ["_context", "packages", "make", "read"])
def test_a_build_that_fails_in_any_way_ends(
    target: Target, monkeypatch: pytest.MonkeyPatch, fault: str, broken: str
) -> None:
    """An exception while an image is read, built or described fails it; asked again, it is built."""
    request = image_request(target, f"COPY a.txt /{broken}/{fault.replace(' ', '-')}")
    request["image"].context_files.add(filename="/a.txt", data=b"a")

    def fails(*_: Any, **__: Any) -> Any:
        raise FAULTS[fault]

    async def fails_later(*_: Any, **__: Any) -> Any:
        raise FAULTS[fault]

    with monkeypatch.context() as context:
        if broken == "packages":
            context.setattr(target.plane.parts.storage.images, broken, fails)
        elif broken == "read":
            context.setattr(images, broken, fails)
        elif broken == "make":
            context.setattr(Builder, broken, fails_later)
        else:
            context.setattr(target.plane.parts.front.images, broken, fails)
        if broken in ("_context", "read"):
            with pytest.raises(GRPCError) as refused:
                target.loop.run_until_complete(built(target, **request))
            assert refused.value.status is failures.FAILED
        else:
            result = target.loop.run_until_complete(built(target, **request))
            assert result.status != SUCCESS
            assert result.exception
    assert target.loop.run_until_complete(built(target, **request)).status == SUCCESS


@pytest.mark.parametrize(
    ("broken", "fault"),
    [("launch", fault) for fault in ("an exception", "an exit", "a cancelled future", "a name that is not UTF-8")]
    + [
        (broken, fault)
        for broken in ("placement", "hold", "container_lost")
        for fault in ("a bug", "a name that is not UTF-8")
    ],
)
def test_an_input_that_cannot_be_run_ends(
    target: Target, monkeypatch: pytest.MonkeyPatch, fault: str, broken: str
) -> None:
    """Whatever fails while a container is chosen, started, given its input or cleared away, the call gets a result."""

    def fails(*_: Any, **__: Any) -> Any:
        raise FAULTS[fault]

    async def fails_later(*_: Any, **__: Any) -> Any:
        raise FAULTS[fault]

    async def scene() -> None:
        app_id = (await target.call("AppCreate", description="a", app_state=api_pb2.APP_STATE_INITIALIZING)).app_id
        function = api_pb2.Function(module_name="m", function_name="f", timeout_secs=300)
        made = await target.call("FunctionCreate", app_id=app_id, function=function)
        published = {"app_state": api_pb2.APP_STATE_EPHEMERAL, "function_ids": {"f": made.function_id}}
        await target.call("AppPublish", app_id=app_id, **published)
        inputs = [api_pb2.FunctionPutInputsItem(idx=0, input=api_pb2.FunctionInput(args=b"x"))]
        ask = None
        with monkeypatch.context() as context:
            if broken == "launch":
                context.setattr(target.plane.parts.execution.container_faults, "run", fails_later)
            elif broken == "placement":
                context.setattr(target.plane.parts.execution.pools.placement, "fitting", fails)
            elif broken == "hold":
                context.setattr(Container, "hold", fails)
            else:
                context.setattr(target.plane.parts.execution.pools.outcomes, "container_lost", fails)
            called = await target.call("FunctionMap", function_id=made.function_id, pipelined_inputs=inputs)
            if broken in ("hold", "container_lost"):
                container, stub = await target.next_container()
                ask = asyncio.create_task(stub.FunctionGetInputs(api_pb2.FunctionGetInputsRequest()))
                if broken == "container_lost":
                    await ask
                    pools = target.plane.parts.execution.pools
                    pools._ended(container, pools.pool(container.function), 1, "ended")
            got = await target.call("FunctionGetOutputs", function_call_id=called.function_call_id, timeout=30)
        assert [output.result.status == SUCCESS for output in got.outputs] == [False]
        assert got.outputs[0].result.exception
        assert got.num_unfinished_inputs == 0
        if broken == "hold":
            assert ask is not None
            with pytest.raises(GRPCError):
                await ask
        await target.call("AppStop", app_id=app_id)

    target.loop.run_until_complete(scene())


def test_a_call_whose_inputs_cannot_be_put_leaves_nothing_waiting(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the error; the inputs that were put before it are cancelled, and the next call works."""

    async def scene() -> None:
        function_id = target.known["function_id"][0]
        inputs = [api_pb2.FunctionPutInputsItem(idx=n, input=api_pb2.FunctionInput(args=b"x")) for n in range(3)]
        submit, calls = target.plane.parts.execution.pools.submit, target.plane.parts.execution.calls
        before = set(calls._calls)

        def fails_at_the_second(*items: Any) -> None:
            for item in items:
                if item.idx == 1:
                    raise RuntimeError("not this one")
                submit(item)

        with monkeypatch.context() as context:
            context.setattr(target.plane.parts.execution.pools, "submit", fails_at_the_second)
            with pytest.raises(GRPCError, match="not this one"):
                await target.call("FunctionMap", function_id=function_id, pipelined_inputs=inputs)
        assert [call.unfinished for call_id, call in calls._calls.items() if call_id not in before] == [0]
        answer = await target.call("FunctionMap", function_id=function_id, pipelined_inputs=inputs)
        assert len(answer.pipelined_inputs) == 3
        await target.call("FunctionCallCancel", function_call_id=answer.function_call_id)

    target.loop.run_until_complete(scene())


def test_a_deployment_that_is_refused_leaves_the_one_before(target: Target) -> None:
    """An app that names a function which does not exist is refused, and the app of that name goes on."""

    async def scene() -> None:
        app_id = (await target.call("AppCreate", description="b", app_state=api_pb2.APP_STATE_INITIALIZING)).app_id
        with pytest.raises(GRPCError) as refused:
            await target.call(
                "AppPublish",
                app_id=app_id,
                name="a name",
                app_state=api_pb2.APP_STATE_DEPLOYED,
                function_ids={"f": "fu-nothing"},
            )
        assert refused.value.status is Status.NOT_FOUND
        found = await target.call("AppGetByDeploymentName", name="a name")
        assert found.app_id == target.known["app_id"][0]

    target.loop.run_until_complete(scene())


async def test_an_image_that_was_being_built_is_built_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it hears that it ended, and the same image is built when it is asked for again."""
    image = api_pb2.Image(dockerfile_commands=["FROM x", "COPY a.txt /a"])
    image.context_files.add(filename="/a.txt", data=b"a")
    request, caller = api_pb2.ImageGetOrCreateRequest(image=image), Caller(None, "", None)
    plane = ControlPlane(Options(state_dir=tmp_path / "state", list_image_commands=True), isolation=Isolation.PLAIN)

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    try:
        monkeypatch.setattr(Builder, "make", never)
        begun = await plane.parts.front.images.ImageGetOrCreate(request, caller)
        assert not begun.result.status
        await plane.state.journal.settled()
        # What a kill leaves.
        shutil.copytree(tmp_path / "state", tmp_path / "left")
    finally:
        await plane.parts.front.images.close()
        _end(plane)
        monkeypatch.undo()

    plane = ControlPlane(Options(state_dir=tmp_path / "left", list_image_commands=True), isolation=Isolation.PLAIN)
    try:
        join = api_pb2.ImageJoinStreamingRequest(image_id=begun.image_id, timeout=55)
        async with asyncio.timeout(AT_ONCE):
            (said,) = [answer async for answer in plane.parts.front.images.ImageJoinStreaming(join, caller)]
        assert said.result.status == api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
        again = await plane.parts.front.images.ImageGetOrCreate(request, caller)
        assert again.image_id != begun.image_id
        join.image_id = again.image_id
        results = [answer.result.status async for answer in plane.parts.front.images.ImageJoinStreaming(join, caller)]
        assert results[-1] == SUCCESS
    finally:
        await plane.parts.front.images.close()
        _end(plane)


def _end(plane: ControlPlane) -> None:
    plane.release()
