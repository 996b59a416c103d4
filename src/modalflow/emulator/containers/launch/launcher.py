"""Start and clean up a container: arguments, variables, files, Volumes, process.

Owns the path from a function's definition to a process with Modal's own container runtime. All decisions are made in
pools.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from modal_proto import api_pb2

from modalflow.emulator.containers.capacity import Capacity
from modalflow.emulator.containers.container import Container
from modalflow.emulator.containers.launch import hints
from modalflow.emulator.containers.launch.snapshots import Snapshots
from modalflow.emulator.definitions.isolation_lines import lines_of
from modalflow.emulator.functions.layouts import Layouts
from modalflow.emulator.images import python_envs
from modalflow.emulator.images.building.client_packages import ClientPackages
from modalflow.emulator.images.building.layer_in_progress import changes_host_packages
from modalflow.emulator.images.image import Image
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.network.networks import Networks
from modalflow.emulator.network.tunnels import OpenTunnels
from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation, Layers, Rootfs, VolumeView
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.emulator.processes.process import Process
from modalflow.emulator.processes.root.rootfs import plain_home
from modalflow.emulator.rpc.container_sockets import ContainerSockets
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.cloud_buckets import CloudBuckets
from modalflow.emulator.services.mounts import Mounts
from modalflow.emulator.services.secrets import Secrets
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.disk_space import StateError
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes.volumes import Volumes
from modalflow.support.linux import send, with_variable

log = logging.getLogger(__name__)

#: Bytes for a container's own files in the state folder, before its first write.
CONTAINER_BYTES = 256 * 1024

#: The host's variables passed to a container: for programs, certificates and the language.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "TMPDIR")

#: Those with paths of the host's root.
_OF_HOST_ROOT = ("LD_LIBRARY_PATH", "TMPDIR", "PYTHONPYCACHEPREFIX")


class Launcher:
    """The starter of containers."""

    def __init__(
        self,
        state: StateDir,
        sockets: ContainerSockets,
        layouts: Layouts,
        images: ImageStore,
        mounts: Mounts,
        secrets: Secrets,
        volumes: Volumes,
        buckets: CloudBuckets,
        logs: Logs,
        fork_server: ForkServer,
        capacity: Capacity,
        networks: Networks,
        tunnels: OpenTunnels,
        clients: ClientPackages,
        snapshots: Snapshots,
    ) -> None:
        self._state = state
        self._sockets = sockets
        self._layouts, self._images, self._mounts = layouts, images, mounts
        self._secrets, self._volumes, self._buckets, self._logs = secrets, volumes, buckets, logs
        self._fork_server = fork_server
        self._capacity = capacity
        self._networks, self._tunnels = networks, tunnels
        self._clients, self._snapshots = clients, snapshots
        self._hinted: set[tuple[str, str]] = set()

    async def run(self, container: Container) -> int:
        """Start the container, wait for its end and clean up; return its exit code. StateError if the disk is full."""
        self._state.journal.make_room(CONTAINER_BYTES)
        try:
            return await self._run(container)
        except OSError as error:
            if not disk_space.unwritable(error):
                raise
            raise StateError(self._state.journal.error_text(error)) from error

    async def _run(self, container: Container) -> int:
        folder = self._state.folder("containers") / container.container_id
        attached: list[str] = []
        # Each step is independent of the others' errors: an image may wait for the last one.
        async with contextlib.AsyncExitStack() as clearing:
            clearing.callback(self._building_over, container)
            clearing.callback(shutil.rmtree, folder, ignore_errors=True)
            clearing.push_async_callback(self._kept, container, folder)
            clearing.push_async_callback(detach_all, self._volumes, container.container_id, attached)
            lent = clearing.enter_context(contextlib.ExitStack())
            clearing.callback(self._close_socket, container)
            clearing.callback(self._networks.leave, container.container_id)
            clearing.callback(self._tunnels.leave, container.container_id)
            clearing.callback(self._snapshots.ended, container.container_id)
            folder.mkdir()
            isolation = await self._fork_server.isolation()
            container.is_plain = isolation is Isolation.PLAIN
            container.is_in_gvisor = isolation is Isolation.GVISOR
            grant = self._capacity.grant(container.container_id)
            has_gpus = grant is not None and bool(grant.devices)
            for line in lines_of(container.spec, isolation, has_gpus=has_gpus):
                self._hint(container, f"{container.function.tag} {line}")
            socket = await self._sockets.open(container.container_id)
            views = await self._attach(container, attached, lent)
            if container.was_ended():
                return 0
            container.process = process = await self._start(container, folder, socket, views)
            await self._networks.join(container.container_id, process)
            if container.was_ended():
                # During the start there was no process to kill.
                process.kill()
            return await process.wait()

    def _close_socket(self, container: Container) -> None:
        self._sockets.close_socket(container.container_id)
        if container.is_plain:
            end_descendants(container.container_id)

    async def _kept(self, container: Container, folder: Path) -> None:
        """Keep a plain container's files for an image; other kinds keep them without help."""
        building = container.function.building
        if building is not None and container.is_plain and (folder / "root").is_dir():
            await asyncio.to_thread(shutil.copytree, folder / "root", building.kept, symlinks=True, dirs_exist_ok=True)

    @staticmethod
    def _building_over(container: Container) -> None:
        if (building := container.function.building) is not None:
            building.ended.set()

    async def _attach(
        self, container: Container, attached: list[str], lent: contextlib.ExitStack
    ) -> tuple[VolumeView, ...]:
        views = []
        spec = container.spec
        paths = [mount.mount_path for mount in spec.volume_mounts]
        paths += [mount.mount_path for mount in spec.cloud_bucket_mounts]
        for mount in spec.volume_mounts:
            view = await self._volumes.attach(
                mount.volume_id,
                container.container_id,
                background_commits=mount.allow_background_commits,
                points=points_in(mount.mount_path, mount.sub_path, paths),
            )
            attached.append(mount.volume_id)
            views.append(
                VolumeView(
                    mount.volume_id, view.root, mount.mount_path, mount.sub_path, mount.read_only, tuple(view.layers)
                )
            )
        for number, bucket in enumerate(spec.cloud_bucket_mounts):
            folder = self._buckets.folder(bucket)
            lent.enter_context(self._buckets.with_points(folder, points_in(bucket.mount_path, "", paths)))
            views.append(VolumeView(f"bucket-{number}", folder, bucket.mount_path, read_only=bucket.read_only))
        return tuple(views)

    async def _start(self, container: Container, folder: Path, socket: Path, views: tuple[VolumeView, ...]) -> Process:
        spec = container.spec
        image = self._images.get(spec.image_id) if spec.image_id else None
        packages = self._images.python(image) if image else None
        layers, root = self._images.layer_folders(image) if image else (), self._images.root
        own_python = image.made.program if image else ""
        if image is not None:
            self._log_unexecuted(container, image.settings.missing)
        arguments_file = folder / "arguments.bin"
        building = container.function.building
        layer = self._mounts.tree(
            ((mount_id, "/") for mount_id in spec.mount_ids), self._images.files(image) if image else None
        )
        if building is not None:
            building.layer = layer
            building.ended.clear()
        rootfs = Rootfs(
            folder=folder,
            layer=layer,
            hidden=self._state.root,
            also_hidden=self._sockets.outside_state,
            shown=(arguments_file, socket, *bytecode_folders(self._state)),
            lent=self._lent(image),
            volumes=views,
            cwd=(image.workdir if image else "") or "/root",
            kept=None if building is None else building.kept,
            layers=Layers(layers, base=root.path) if layers or not root.is_host else None,
        )
        home = str(plain_home(rootfs)) if container.is_plain else "/root"
        variables = common_variables(self._state)
        if not root.is_host:
            variables = {n: v for n, v in variables.items() if n not in _OF_HOST_ROOT} | {"PATH": root.search_path}
        # An image's environment leads to the host's packages, after its own.
        behind = [] if packages is not None else _packages_on_pythonpath()
        variables |= {"HOME": home, "PYTHONPATH": os.pathsep.join([home, *behind])}
        variables |= image.variables if image else {}
        path = variables.get("PATH", os.defpath)
        if packages is not None and str(packages / "bin") not in path.split(os.pathsep):
            variables["PATH"] = os.pathsep.join([str(packages / "bin"), path])
        for secret_id in spec.secret_ids:
            variables |= self._secrets.values(secret_id)
        variables |= {
            "MODAL_SERVER_URL": f"unix://{socket}",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments_file),
            "MODAL_TASK_ID": container.container_id,
            "MODAL_IMAGE_ID": spec.image_id,
            "MODAL_ENVIRONMENT": container.function.app.environment,
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL",
            "MODAL_REGION": "local",
            **{n: v for n, v in _fixed_variables(self._state).items() if root.is_host or n not in _OF_HOST_ROOT},
            **({"MODAL_FUNCTION_RUNTIME": "gvisor"} if container.is_in_gvisor else {}),
            **self._devices(container),
        }
        container.last_heard = time.monotonic()
        arguments = self._arguments(container)
        plan = await self._snapshots.plan(container, arguments, variables, folder)
        if plan is not None:
            rootfs = replace(rootfs, shown=(*rootfs.shown, plan.snapshot.folder), volumes=(*rootfs.volumes, plan.view))
            variables |= plan.variables
        arguments_file.write_bytes(arguments.SerializeToString())
        return await self._fork_server.launch(
            ContainerSpec(
                rootfs,
                variables,
                python=Path(own_python) if own_python else packages and python_envs.python(packages),
                site=() if packages is None or own_python else tuple(python_envs.packages(packages)),
                own_network=self._networks.own_network,
                fresh=bool(own_python) or not root.is_host or changes_host_packages(layers),
                snapshot=None if plan is None else plan.snapshot,
            ),
            lambda line: self._printed(container, line, api_pb2.FILE_DESCRIPTOR_STDOUT),
            lambda line: self._printed(container, line, api_pb2.FILE_DESCRIPTOR_STDERR),
        )

    def _lent(self, image: Image | None) -> tuple[Path, ...]:
        """Return the folders of packages that are no part of the image's files."""
        if image is not None and image.made.program:
            return (self._clients.folder(image.made.series),)
        packages = None if image is None or image.made.layers else self._images.python(image)
        return () if packages is None else (packages,)

    def _log_unexecuted(self, container: Container, missing: tuple[str, ...]) -> None:
        """Log the missing image steps, once for each function and image, as for its resources."""
        container.missing = missing
        if line := hints.unexecuted(missing):
            self._hint(container, f"{container.function.tag}: {line}")

    def _hint(self, container: Container, line: str) -> None:
        """Log a line about the function, once."""
        if (container.function.object_id, line) not in self._hinted:
            self._hinted.add((container.function.object_id, line))
            self._printed(container, f"{line}\n", api_pb2.FILE_DESCRIPTOR_INFO)

    def _devices(self, container: Container) -> dict[str, str]:
        """Return the variable for a container's GPUs if any are declared; CUDA reads it."""
        grant = self._capacity.grant(container.container_id)
        if self._capacity.gpus is None or grant is None:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, grant.devices))}

    def _arguments(self, container: Container) -> api_pb2.ContainerArguments:
        function = container.function
        return message(
            api_pb2.ContainerArguments,
            task_id=container.container_id,
            function_id=function.object_id,
            app_id=function.app.app_id,
            function_def=container.spec,
            serialized_params=function.serialized_params,
            environment_name=function.app.environment,
            app_layout=self._layouts.layout(
                function.app, [d.object_id for d in container.spec.object_dependencies], function.pinned_version
            ),
        )

    def _printed(self, container: Container, line: str, source: int) -> None:
        function = container.function
        item = container.sole_input
        if source == api_pb2.FILE_DESCRIPTOR_STDERR:
            container.stderr_tail.append(line)
        if function.building is not None:
            # Logged by the image's build; the app's log would repeat it.
            function.building.output.piece(line, source)
            return
        self._logs.of(function.app).add(
            line,
            source,
            container_id=container.container_id,
            function_id=function.object_id,
            root_function_id=function.root.object_id,
            function_call_id=item.call.call_id if item else "",
            input_id=item.input_id if item else "",
        )


async def detach_all(volumes: Volumes, container_id: str, attached: Iterable[str]) -> None:
    """Commit and detach each of the Volumes, whether or not another one fails."""
    async with contextlib.AsyncExitStack() as each:
        for volume_id in attached:
            each.push_async_callback(volumes.detach, volume_id, container_id)


def points_in(mount_path: str, sub_path: str, others: Iterable[str]) -> list[str]:
    """Return the container's other mount paths inside a Volume."""
    whole = PurePosixPath("/", mount_path.strip("/"))
    below = (PurePosixPath("/", other.strip("/")) for other in others)
    inside = (path.relative_to(whole) for path in below if path != whole and path.is_relative_to(whole))
    return [str(PurePosixPath(sub_path.strip("/")) / path) for path in inside]


def common_variables(state: StateDir) -> dict[str, str]:
    """Return the first variables of every container, and of the template."""
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables |= {"HOME": "/root", "PYTHONPATH": os.pathsep.join(_packages_on_pythonpath())}
    return variables | _fixed_variables(state)


def _fixed_variables(state: StateDir) -> dict[str, str]:
    """Return the variables protected from images and secrets."""
    return {
        "MODAL_IS_REMOTE": "1",
        # The host's ~/.modal.toml is visible to a container but belongs to the user.
        "MODAL_CONFIG_PATH": os.devnull,
        "PYTHONUNBUFFERED": "1",
    } | ({} if _has_bytecode() else {"PYTHONPYCACHEPREFIX": str(_bytecode(state))})


def bytecode_folders(state: StateDir) -> list[Path]:
    """Return the folder for containers' compiled modules, empty if the host's packages are compiled.

    Without compiled packages (uv does not compile by default), each container would compile its imports into its
    private layer. They therefore share a folder, filled by the first one.
    """
    return [] if _has_bytecode() else [_bytecode(state)]


def _bytecode(state: StateDir) -> Path:
    return state.folder("bytecode")


def _packages_on_pythonpath() -> list[str]:
    """Return the folder of the host's packages if only PYTHONPATH leads there; a container gets no other part of it."""
    spec = importlib.util.find_spec("modal")
    folder = str(Path(spec.origin).parents[1]) if spec is not None and spec.origin is not None else ""
    return [folder] if folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) and folder else []


@functools.cache
def _has_bytecode() -> bool:
    spec = importlib.util.find_spec("modal")
    return spec is None or spec.origin is None or Path(importlib.util.cache_from_source(spec.origin)).exists()


def end_descendants(container_id: str) -> None:
    """Kill what a plain container started and left behind: it has the container's id among its variables."""
    for pid in with_variable("MODAL_TASK_ID", container_id):
        send(pid, signal.SIGKILL)
