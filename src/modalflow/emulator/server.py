"""The control plane as a whole: its services joined, its server, its start and its end.

Owns the wiring. No service knows another one's insides: what one needs of a later one is given to it here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from grpclib.encoding.proto import ProtoCodec
from grpclib.server import Server
from modal_proto import api_pb2

from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.inspection import Inspection
from modalflow.emulator.apps.versions import Versions
from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.calls import Calls
from modalflow.emulator.containers.launcher import Launcher, common_variables, mounted_at
from modalflow.emulator.containers.memory_watch import MemoryWatch
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.containers.runtime import Runtime
from modalflow.emulator.faults.endpoint import Endpoint
from modalflow.emulator.faults.service import Faults
from modalflow.emulator.functions.definitions import Function
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.housekeeping import Upkeep
from modalflow.emulator.images.building_functions import BuildingFunctions
from modalflow.emulator.images.image_names import ImageNames
from modalflow.emulator.images.images import Images
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.emulator.queues.queues import Queues
from modalflow.emulator.rpc.container_sockets import Doors
from modalflow.emulator.rpc.dispatcher import Credentials, Dispatcher, RpcStatusDetails
from modalflow.emulator.rpc.serving import ClosingServer
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.services.clients import Clients
from modalflow.emulator.services.cloud_buckets import Buckets, parse
from modalflow.emulator.services.dicts import Dicts
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.services.mounts import Mounts
from modalflow.emulator.services.secrets import Secrets
from modalflow.emulator.state.store import StateDir
from modalflow.emulator.volumes.volumes import Volumes

log = logging.getLogger(__name__)


class ListenError(RuntimeError):
    """The control plane cannot listen where it should. Its text says why and what to do."""


class ControlPlane:
    """One local control plane. Start and close it on the same event loop, from the thread that lives as long as it."""

    def __init__(self, options: Options | None = None, *, isolation: Isolation | None = None) -> None:
        """Without ``isolation`` containers get the best kind that works on this machine."""
        self.options = options or Options()
        self.state = StateDir(self.options.state_dir)
        try:
            self._join(isolation)
        except BaseException:
            self.state.close()
            raise

    def _join(self, isolation: Isolation | None) -> None:
        journal = self.state.journal
        self.doors = Doors(self.state)
        token = self.state.token(self.options.token_id, self.options.token_secret)
        self.credentials = Credentials(*token, self.doors)
        environments = Environments(journal)
        self.blobs = Blobs(self.state, self.options.host)
        secrets = Secrets(environments, journal)
        self._fork_server = ForkServer(
            common_variables(self.state),
            isolation=isolation,
            preload=self.options.fork_server,
            folder=self.state.folder("containers"),
        )
        self.volumes = Volumes(
            self.state,
            self.blobs,
            environments,
            overlays=self._fork_server.overlays,
            mounted_at=self._mounted_at,
            written_files=self._written_files,
        )
        dicts, queues = Dicts(environments, journal), Queues(environments, journal)
        self.apps = Apps(environments, journal)
        self.functions = Functions(self.apps, journal)
        self.logs = Logs(self.apps, journal)
        mounts = Mounts(self.state, self.blobs, environments)
        self.images = images = Images(self.state, mounts, secrets, self._fork_server)
        capacity = self.options.capacity()
        self.launcher = Launcher(
            self.state,
            self.doors,
            self.functions,
            images,
            mounts,
            secrets,
            self.volumes,
            Buckets(self.state.folder("buckets"), parse(self.options.buckets)),
            self.logs,
            self._fork_server,
            capacity,
        )
        self.faults = Faults(self.options.fault_seed, self.launcher.run)
        self.pools = Pools(
            self.faults.launch,
            capacity,
            scaledown_window=self.options.scaledown_window,
        )
        self.logs.of_build = images.entries
        self.logs.container = self.pools.app_of
        images.run_function = BuildingFunctions(self.state, self.functions, self.pools).run
        call_records = CallRecords(journal)
        self.calls = Calls(self.functions, self.pools, call_records, rate_limits=self.options.rate_limits)
        restored = call_records.load(self.functions.find)
        self.calls.restore(restored.calls)
        self._waiting = restored.waiting
        runtime = Runtime(self.functions, self.pools, environments, on_output=self.volumes.commit_soon)

        self.apps.on_stop.append(self.pools.stop_app)
        self.apps.on_forget.append(self.pools.forget_app)
        self.apps.count_containers = lambda app: sum(c.function.app is app for c in self.pools.live())
        self.apps.has_calls = self.calls.has_unfinished
        self.functions.on_publish.append(self.pools.published)
        self.functions.volume_metadata = self.volumes.metadata
        self.volumes.open_files = self._open_files

        self.pools.placing.on_note = self._note
        self._memory = MemoryWatch(self.pools.live, self._note)
        self._upkeep = Upkeep(self.apps, self.calls, self.pools, self.logs, self.blobs, self.volumes)
        self._loops: list[asyncio.Task[None]] = []
        self.dispatcher = Dispatcher(
            [
                Clients(),
                environments,
                self.apps,
                Versions(self.apps),
                Inspection(self.apps, self.functions, self.pools, environments, self.credentials.token_id),
                self.functions,
                self.calls,
                runtime,
                self.logs,
                images,
                ImageNames(self.state, environments, images),
                mounts,
                secrets,
                self.volumes,
                dicts,
                queues,
                self.blobs,
            ],
            self.credentials,
            self.state.journal,
        )
        self.faults.attach(self.dispatcher, self.pools, self.volumes)
        self.blobs.routes += Endpoint(self.faults, self.pools, self.credentials).routes()
        self.blobs.passage = self.faults.passage
        self._server: ClosingServer | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen; ``url`` is the address afterwards."""
        for spec in self.options.fault_rules:
            self.faults.add(spec)
        self._fork_server.start()
        await self.blobs.start()
        server = ClosingServer([self.dispatcher], codec=ProtoCodec(), status_details_codec=RpcStatusDetails())
        try:
            await server.start(self.options.host, self.options.port)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            raise ListenError(
                f"nothing can listen on port {self.options.port} of {self.options.host} ({reason}); "
                "stop what does, or give another --port"
            ) from error
        self._server = server
        port = _port(server)
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        self.url = f"http://{host}:{port}"
        self.doors.lead_to(server.protocol)
        self.volumes.start()
        self._resume()
        self._loops = [asyncio.create_task(self._upkeep.run()), asyncio.create_task(self._memory.run())]

    def _resume(self) -> None:
        """Go on with what an earlier control plane left: inputs first, then containers that are to be there."""
        self.pools.resume(self._waiting)
        self._waiting = []
        for function in self.functions:
            if not function.callable_reason and self.pools.scaling(function).min_containers:
                self.pools.rescale(function)

    async def close(self) -> None:
        """End all containers, then the server; a temporary state folder is removed."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.faults.close()
        await self.images.close()
        # The server answers until the last container is gone: they commit their volumes at exit.
        await self.pools.close()
        self._fork_server.close()
        await self.volumes.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self.doors.close()
        await self.blobs.close()
        self.state.close()

    def _note(self, function: Function, text: str) -> None:
        """Write something into the log of a function's app."""
        self.logs.of(function.app).add(
            f"{text}\n",
            api_pb2.FILE_DESCRIPTOR_INFO,
            function_id=function.object_id,
            root_function_id=function.root.object_id,
        )

    def _mounted_at(self, container_id: str, volume_id: str) -> Path | None:
        container = self.pools.container(container_id)
        if container is None or container.process is None:
            return None
        return mounted_at(container.process.pid, volume_id)

    def _written_files(self, container_id: str) -> set[str]:
        container = self.pools.container(container_id)
        return set() if container is None else self.launcher.open_files(container, only_written=True)

    def _open_files(self, container_id: str) -> set[str]:
        container = self.pools.container(container_id)
        return set() if container is None else self.launcher.open_files(container)


def _port(server: Server) -> int:
    """The port that the system chose. grpclib keeps the asyncio server to itself."""
    inner: Any = server._server
    if inner is None or not inner.sockets:
        raise RuntimeError("the server did not start to listen")
    return int(inner.sockets[0].getsockname()[1])
