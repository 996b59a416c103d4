"""A control plane to send requests to, with one of everything and containers that are only doors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib import GRPCError, Status
from grpclib.client import Channel
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientStub

from modalflow.emulator.containers.container import Container
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.control_plane.wiring import grpc_server
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.rpc.grpc_server import ClosingServer

SERVICE: ServiceDescriptor = api_pb2.DESCRIPTOR.services_by_name["ModalClient"]

#: A long poll is given up after so long. Long enough for any answer that does not wait for something.
PATIENCE = 0.02


def _port(server: ClosingServer) -> int:
    inner: Any = server._server
    return int(inner.sockets[0].getsockname()[1])


class Target:
    """A control plane with one of everything, and two connections to it: a client's and a container's."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.known: dict[str, list[str]] = {}
        self._started: asyncio.Queue[tuple[Container, Path]] = asyncio.Queue()
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        options = Options(list_image_commands=True)
        self.plane = ControlPlane(options, isolation=Isolation.PLAIN)
        await self.plane.parts.front.file_server.start()
        # What is hostile here are requests; a program would have the machine for itself anyway.
        vars(self.plane.parts.execution.container_faults)["run"] = self._launch
        self._server = grpc_server(self.plane.parts.front.dispatcher)
        await self._server.start("127.0.0.1", 0)
        self.plane.parts.base.sockets.serve(self._server.protocol)
        self._channels = [Channel("127.0.0.1", _port(self._server))]
        self.client = ModalClientStub(self._channels[0])
        credentials = self.plane.parts.base.credentials
        self._token = {"x-modal-token-id": credentials.token_id, "x-modal-token-secret": credentials.token_secret}
        await self._furnish()

    async def _launch(self, container: Container) -> int:
        self._started.put_nowait((container, await self.plane.parts.base.sockets.open(container.container_id)))
        await asyncio.get_running_loop().create_future()
        return 0

    async def call(self, rpc: str, /, **fields: Any) -> Any:
        """Call as a client."""
        kind = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)
        return await getattr(self.client, rpc)(kind(**fields), metadata=self._token)

    async def next_container(self) -> tuple[Container, ModalClientStub]:
        """Wait for a container to be started; return it with a connection through its door."""
        container, door = await self._started.get()
        self._channels.append(Channel(path=str(door)))
        return container, ModalClientStub(self._channels[-1])

    async def _furnish(self) -> None:
        """Make one of everything, so that hostile requests have something to be about."""

        call = self.call
        create = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        spare = await call("AppCreate", description="spare", app_state=api_pb2.APP_STATE_INITIALIZING)
        self.spare_app_id = spare.app_id
        app = (await call("AppCreate", description="a", app_state=api_pb2.APP_STATE_INITIALIZING)).app_id
        function = api_pb2.Function(module_name="m", function_name="f", timeout_secs=300)
        made = await call("FunctionCreate", app_id=app, function=function)
        await call(
            "AppPublish",
            app_id=app,
            name="a name",
            app_state=api_pb2.APP_STATE_DEPLOYED,
            function_ids={"f": made.function_id},
        )
        inputs = [api_pb2.FunctionPutInputsItem(idx=0, input=api_pb2.FunctionInput(args=b"x"))]
        called = await call("FunctionMap", function_id=made.function_id, pipelined_inputs=inputs)
        container, self.container = await self.next_container()
        await self.container.FunctionGetInputs(api_pb2.FunctionGetInputsRequest())
        image = await call("ImageGetOrCreate", app_id=app, image=api_pb2.Image(dockerfile_commands=["FROM base"]))
        mount = await call("MountGetOrCreate")
        self.known = {
            "app_id": [app],
            "function_id": [made.function_id],
            "existing_function_id": [made.function_id],
            "function_call_id": [called.function_call_id],
            "input_id": [called.pipelined_inputs[0].input_id],
            "task_id": [container.container_id],
            "container_id": [container.container_id],
            "image_id": [image.image_id],
            "mount_id": [mount.mount_id],
            "context_mount_id": [mount.mount_id],
            "mount_ids": [mount.mount_id],
            "blob_id": [(await call("BlobCreate")).blob_id],
            "app_name": ["a name"],
            "object_tag": ["f", "C"],
            "name": ["a name"],
            "deployment_name": ["a name"],
            "environment_name": ["", "main"],
        }
        for kind in ("Dict", "Queue", "Volume", "Secret"):
            field = f"{kind.lower()}_id"
            found = await call(f"{kind}GetOrCreate", deployment_name="a name", object_creation_type=create)
            self.known[field] = self.known[f"{field}s"] = [getattr(found, field)]

    def forget_token(self) -> None:
        """From now on the client sends none."""
        self._token = {}

    @staticmethod
    def request(rpc: str) -> Message:
        """Return an empty request."""
        made: Message = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)()
        return made

    def send(self, name: str, request: Message, *, as_container: bool, patience: float = PATIENCE) -> Status:
        """Send the request; return the status of the answer, OK for one that waits for something."""
        return self.loop.run_until_complete(self._send(name, request, as_container, patience))

    async def _send(self, name: str, request: Message, as_container: bool, patience: float) -> Status:
        method = getattr(self.container if as_container else self.client, name)
        try:
            async with asyncio.timeout(patience), method.open(metadata={} if as_container else self._token) as stream:
                await stream.send_message(request, end=True)
                async for _ in stream:
                    pass
        except TimeoutError:
            pass
        except GRPCError as error:
            self.said = error.message or ""
            return error.status
        return Status.OK

    def close(self) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            for channel in self._channels:
                channel.close()
            self._server.close()
            await self._server.wait_closed()
            await self.plane.parts.front.file_server.close()
            self.plane.release()

        self.loop.run_until_complete(end())
        self.loop.close()
