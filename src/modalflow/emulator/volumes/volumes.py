"""The RPCs of Volumes: mount, commit, reload.

Owns the Volumes and the synchronisation of views. A commit merges a container's changes file by file; the last writer
wins. A reload adds the commits of others. Readers see every commit immediately. ``tree`` is a Volume's content,
``views`` its copies on disk, ``files`` the access of clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.definitions.definition_check import refuse_unsupported
from modalflow.emulator.faults.late_commits import LateCommits
from modalflow.emulator.processes.container_spec import VOLUMES
from modalflow.emulator.rpc.idempotency import CHANGE, HEARTBEAT, READ
from modalflow.emulator.rpc.service import Caller, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.registry import Registry
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes.block_store import BlockStore
from modalflow.emulator.volumes.container_mounts import ContainerMounts
from modalflow.emulator.volumes.tree import Node, Tree
from modalflow.emulator.volumes.views.overlay_view import OverlayView
from modalflow.emulator.volumes.views.view import CopiedView, View
from modalflow.emulator.volumes.views.volume_layers import VolumeLayers
from modalflow.emulator.volumes.volume import Attached, Volume
from modalflow.emulator.volumes.volume_files import VolumeFiles
from modalflow.emulator.volumes.volume_records import VolumeRecords

log = logging.getLogger(__name__)

#: Modal commits the writes of a running container "every few seconds" in the background (Modal's guide, "Volumes"; the
#: number is inferred).
BACKGROUND_COMMIT_SECONDS = 5.0


#: The minimum number of seconds between two background commits of a container, also after finished inputs.
COMMIT_GAP_SECONDS = 0.5

#: The number of paths from which a call builds the layer itself, and the next container need not do it.
BUILD_AT = 200

#: Seconds without a change before a file of several blocks is put together, because it may still be growing. The start
#: of a container also does it.
BUILD_SECONDS = 2 * BACKGROUND_COMMIT_SECONDS

#: Paths of one commit per turn of the event loop: about 20 ms, including their records.
PATHS_PER_TURN = 500


class Volumes(VolumeFiles):
    """Answers the Volume RPCs; ``attach`` and ``detach`` are for the service that starts containers."""

    def __init__(
        self,
        state: StateDir,
        addresses: Addresses,
        environments: Environments,
        mounts: ContainerMounts,
        late_commits: LateCommits,
    ) -> None:
        self._mounts, self._late_commits = mounts, late_commits
        self._volumes = Registry("Volume", "vo", Volume, environments, state.journal, on_delete=self._release_all)
        self._records = VolumeRecords(state.journal)
        self._attached: dict[tuple[str, str], Attached] = {}
        self._views, self._trees = state.folder("views"), state.folder("trees")
        self._journal, self._trash = state.journal, state.trash
        self._under_way: set[asyncio.Task[None]] = set()
        super().__init__(state.files, BlockStore(state.folder("blocks")), addresses)
        kept = self._records.load()
        for volume in self._volumes.all():
            nodes = kept.get(volume.object_id, {})
            self._hold(volume, nodes)
            self._blocks.restore(block for node in nodes.values() for block in node.blocks)
        self._blocks.restore_large_files()
        self._blocks.clear_orphans(state.orphaned_before)

    def start(self) -> None:
        """Build the layers in the background, if an earlier control plane did not finish them."""
        for volume in self._volumes.all():
            if volume.layers is not None and volume.layers.pending:
                volume.layers.build_later(0.0)

    async def close(self) -> None:
        """Stop background work, after the containers have ended."""
        await asyncio.gather(*(v.layers.close() for v in self._volumes.all() if v.layers is not None))

    def _hold(self, volume: Volume, nodes: Mapping[str, Node]) -> None:
        """Create the tree and the layers of a Volume."""
        volume.tree = Tree(nodes, self._records.writer(volume.object_id))
        folder = self._trees / volume.object_id
        volume.layers = VolumeLayers(folder, volume.tree, self._blocks, self._trash, self._mounts.overlays)

    async def _changed(self, volume_id: str, paths: int) -> None:
        """Build a layer of a number of changed files, later if there are few.

        The call with many new files waits for their layer; otherwise the next container would wait for it.
        """
        layers = self._volumes.get(volume_id).layers
        if layers is None:
            return
        if paths >= BUILD_AT:
            await layers.build_now()
        elif layers.pending:
            layers.build_later(BUILD_SECONDS)

    def metadata(self, volume_id: str) -> api_pb2.VolumeMetadata:
        return self._volumes.get(volume_id).metadata

    async def attach(
        self, volume_id: str, container_id: str, *, background_commits: bool = True, points: Collection[str] = ()
    ) -> View:
        """Return the container's own writable view of the Volume at its last commit.

        Repeated calls for one container return the same view. With ``background_commits``, the container's writes are
        committed every few seconds. ``points`` are paths in the Volume that carry other mounts of the container.
        """
        volume = self._volumes.get(volume_id)
        key = (volume_id, container_id)
        if key not in self._attached:
            folder = self._views / volume_id / container_id
            attached = await self._made(volume, folder, points)
            if background_commits:
                attached.committer = asyncio.create_task(self._keep_committing(volume_id, container_id, attached))
            self._attached[key] = attached
        return self._attached[key].view

    async def _made(self, volume: Volume, folder: Path, points: Collection[str]) -> Attached:
        attributes = await self._mounts.overlays()
        if volume.layers is None or not attributes:
            copy = CopiedView(folder, volume.tree, self._blocks, points)
            await asyncio.to_thread(copy.update, copy.updates(), None, {})
            return Attached(copy)
        lower = await volume.layers.lower()
        try:
            view = OverlayView(folder, volume.tree, lower, self._blocks, attributes)
            return Attached(view, volume.layers, lower)
        except BaseException:
            volume.layers.release(lower)
            raise

    async def detach(self, volume_id: str, container_id: str) -> None:
        """Commit the last changes of an ended container and remove its view. You may repeat the call."""
        attached = self._attached.get((volume_id, container_id))
        if attached is None:
            return
        if attached.committer is not None:
            attached.committer.cancel()
        try:
            await self._commit(volume_id, container_id)
        except GRPCError as error:
            log.info("volume %s of container %s is not committed: %s", volume_id, container_id, error.message)
        finally:
            self._attached.pop((volume_id, container_id), None)
            self._trash.put(self._views / volume_id / container_id)
            attached.release()

    @rpc(repeat=CHANGE)
    async def VolumeGetOrCreate(
        self, request: api_pb2.VolumeGetOrCreateRequest, caller: Caller
    ) -> api_pb2.VolumeGetOrCreateResponse:
        refuse_unsupported(request)
        volume, new = self._volumes.get_or_create(
            request.deployment_name, request.environment_name, request.object_creation_type
        )
        if new:
            self._hold(volume, {})
            volume.version = request.version or api_pb2.VOLUME_FS_VERSION_V1
            self._volumes.save(volume)
        return message(
            api_pb2.VolumeGetOrCreateResponse,
            volume_id=volume.object_id,
            version=volume.version,
            metadata=volume.metadata,
        )

    @rpc(repeat=READ)
    async def VolumeGetById(
        self, request: api_pb2.VolumeGetByIdRequest, caller: Caller
    ) -> api_pb2.VolumeGetByIdResponse:
        volume = self._volumes.get(request.volume_id)
        return api_pb2.VolumeGetByIdResponse(volume_id=volume.object_id, metadata=volume.metadata)

    @rpc(repeat=READ)
    async def VolumeList(self, request: api_pb2.VolumeListRequest, caller: Caller) -> api_pb2.VolumeListResponse:
        return message(
            api_pb2.VolumeListResponse,
            environment_name=request.environment_name,
            items=[
                message(
                    api_pb2.VolumeListItem,
                    label=volume.name,
                    volume_id=volume.object_id,
                    created_at=volume.created_at,
                    metadata=volume.metadata,
                )
                for volume in self._volumes.listed(request.environment_name, request.pagination)
            ],
        )

    @rpc(repeat=CHANGE)
    async def VolumeRename(self, request: api_pb2.VolumeRenameRequest, caller: Caller) -> Empty:
        self._volumes.rename(request.volume_id, request.name)
        return Empty()

    @rpc(repeat=CHANGE, needs_room=False)
    async def VolumeDelete(self, request: api_pb2.VolumeDeleteRequest, caller: Caller) -> Empty:
        self._volumes.delete(request.volume_id)
        return Empty()

    @rpc(repeat=HEARTBEAT)
    async def VolumeHeartbeat(self, request: api_pb2.VolumeHeartbeatRequest, caller: Caller) -> Empty:
        self._volumes.heartbeat(request.volume_id)
        return Empty()

    @rpc(
        repeat=CHANGE,
        inferred=(
            "the last writer wins per file; a commit contains only files touched by the container; modes and "
            "times are kept, owners and extended attributes are not. A background commit also follows a finished "
            "input; if a file is still open for writing and has only grown, the commit reads only the addition."
        ),
    )
    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest, caller: Caller) -> api_pb2.VolumeCommitResponse:
        container_id = caller.container_id or optional(request, "container_id") or ""
        await self._commit(request.volume_id, container_id)
        # Without this the SDK reloads, and fails while a file is open: a log could never be committed as it grows.
        return message(api_pb2.VolumeCommitResponse, skip_reload=True)

    @rpc(
        repeat=CHANGE,
        needs_room=False,
        inferred=(
            "the container's changes are committed first, so that a reload loses nothing; either version refuses "
            "it while a file is open."
        ),
    )
    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest, caller: Caller) -> Empty:
        await self._to_the_end(self._reload(request.volume_id, caller.container_id or ""))
        return Empty()

    async def _reload(self, volume_id: str, container_id: str) -> None:
        volume = self._volumes.get(volume_id)
        attached = self._attached_view(volume_id, container_id)
        async with attached.busy:
            if await asyncio.to_thread(self._has_open_files, attached.view, volume_id, container_id):
                # The SDK's ``Volume.reload`` searches the text for "there are open files preventing the operation"
                # before it names the file. It expects NotFoundError or ConflictError: FAILED_PRECONDITION.
                raise GRPCError(
                    Status.FAILED_PRECONDITION, "there are open files preventing the operation: close them, then reload"
                )
            await self._merge(volume, attached)
            mounted = await asyncio.to_thread(self._mounts.mounted_at, container_id, volume_id)
            wanted = attached.view.updates()
            done: dict[str, Node | None] = {}
            try:
                await asyncio.to_thread(attached.view.update, wanted, mounted, done)
            finally:
                # Also after a partial update: the next commit would treat it as the container's changes.
                attached.view.confirm(done)

    def _find(self, volume_id: str) -> tuple[Tree, asyncio.Lock]:
        volume = self._volumes.get(volume_id)
        return volume.tree, volume.changing

    async def _commit(self, volume_id: str, container_id: str, growing: Collection[str] = ()) -> None:
        await self._to_the_end(self._commit_now(volume_id, container_id, growing))

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await work that continues if the caller disconnects.

        If it were cancelled, changes would be lost that the view already counts as committed.
        """
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _commit_now(self, volume_id: str, container_id: str, growing: Collection[str]) -> None:
        volume = self._volumes.get(volume_id)
        await self._late_commits.wait(volume.name)
        attached = self._attached_view(volume_id, container_id)
        async with attached.busy:
            await self._merge(volume, attached, growing)

    async def _merge(self, volume: Volume, attached: Attached, growing: Collection[str] = ()) -> None:
        try:
            changes = await asyncio.to_thread(attached.view.changes, growing)
        except OSError as error:
            if not disk_space.unwritable(error):
                raise
            # The view is unchanged: the next commit finds the same changes.
            raise GRPCError(Status.RESOURCE_EXHAUSTED, self._journal.error_text(error)) from error
        if not changes:
            return
        async with volume.changing:
            await self._apply(volume.tree, changes, attached.view)
        await self._changed(volume.object_id, len(changes))

    async def _apply(self, tree: Tree, changes: Mapping[str, Node | None], view: View) -> None:
        """Apply the changes of a view in several turns of the event loop."""
        gone: list[Node] = []
        # Remove the content of a directory before the directory, and add it after the directory.
        removed = sorted((path for path, node in changes.items() if node is None), reverse=True)
        paths = [*removed, *sorted(path for path, node in changes.items() if node is not None)]
        for first in range(0, len(paths), PATHS_PER_TURN):
            if first:
                await asyncio.sleep(0)
            part = {path: changes[path] for path in paths[first : first + PATHS_PER_TURN]}
            for path, node in part.items():
                gone += tree.discard(path) if node is None else tree.put(path, node)
            view.confirm(part)
        self._release(gone)

    def _attached_view(self, volume_id: str, container_id: str) -> Attached:
        attached = self._attached.get((volume_id, container_id))
        if attached is None:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Volume {volume_id} is not mounted here: commit and reload work only in a container with the Volume",
            )
        return attached

    def _has_open_files(self, view: View, volume_id: str, container_id: str) -> bool:
        """Return whether the container has an open file in the view."""
        opened = self._mounts.open_files(container_id)
        mounted = f"{VOLUMES}/{volume_id}/"
        if any(f"{path}/".startswith(mounted) for path in opened):
            return True
        # Compare inodes if the container sees another path, as for a copy.
        return isinstance(view, CopiedView) and bool(opened) and view.holds(opened)

    def commit_soon(self, container_id: str) -> None:
        """Commit soon, because the container has finished an input."""
        for (_, holder), attached in self._attached.items():
            if holder == container_id:
                attached.finished.set()

    async def _keep_committing(self, volume_id: str, container_id: str, attached: Attached) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BACKGROUND_COMMIT_SECONDS):
                    await attached.finished.wait()
            attached.finished.clear()
            try:
                await self._commit(volume_id, container_id, await self._growing(volume_id, container_id))
            except GRPCError as error:
                if error.status is Status.RESOURCE_EXHAUSTED:
                    log.warning("background commit of volume %s: %s", volume_id, error.message)
                    continue
                log.info("no more background commits of %s: %s", volume_id, error.message)
                return
            except Exception:
                # The boundary of a loop: the next commit may succeed, and the last one reports errors.
                log.exception("background commit of volume %s by container %s failed", volume_id, container_id)
            await asyncio.sleep(COMMIT_GAP_SECONDS)

    async def _growing(self, volume_id: str, container_id: str) -> set[str]:
        """Return the paths of the volume's files that the container has open for writing."""
        mounted = f"{VOLUMES}/{volume_id}/"
        written = await asyncio.to_thread(self._mounts.written_files, container_id)
        return {path[len(mounted) :] for path in written if path.startswith(mounted)}

    def _release_all(self, volume: Volume) -> None:
        self._records.discard(volume.object_id)
        self._release(volume.tree.nodes().values())
        if volume.layers is not None:
            discarding = asyncio.ensure_future(volume.layers.discard())
            self._under_way.add(discarding)
            discarding.add_done_callback(self._under_way.discard)
