"""Modal Volumes: trees of files that containers mount, each in a view of its own, and that clients read and write.

Owns the volumes and when a view and its volume come into step: a commit merges what the container changed, file by
file, the last writer winning; a reload brings in what others committed. Readers see each commit at once. What a tree
is, is tree.py's; how a view looks on disk, view.py's; upload and download by clients, volume_files.py's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.blobs import Blobs
from modalflow.emulator.environments import Environments
from modalflow.emulator.rpc import Caller
from modalflow.emulator.state import room
from modalflow.emulator.state.registry import Kept, Registry
from modalflow.emulator.state.store import StateDir
from modalflow.emulator.volumes.blocks import BlockStore
from modalflow.emulator.volumes.files import VolumeFiles
from modalflow.emulator.volumes.records import VolumeRecords
from modalflow.emulator.volumes.tree import Node, Tree
from modalflow.emulator.volumes.view import View
from modalflow.emulator.wire import message, optional

log = logging.getLogger(__name__)

#: Where Modal's runtime, and with it the SDK, expects volumes to be mounted in a container.
MOUNT_ROOT = "/__modal/volumes"

#: Modal commits what a running container wrote "every few seconds" without being asked (Modal's guide, "Volumes"; how
#: many seconds is inferred).
BACKGROUND_COMMIT_SECONDS = 5.0


@dataclass(kw_only=True)
class Volume(Kept):
    """One Modal Volume as it was last committed."""

    RECORDED: ClassVar[tuple[str, ...]] = (*Kept.RECORDED, "version")

    version: int = api_pb2.VOLUME_FS_VERSION_V1
    tree: Tree = field(default_factory=Tree)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the tree or one of the views is worked on."""

    @property
    def metadata(self) -> api_pb2.VolumeMetadata:
        return message(api_pb2.VolumeMetadata, version=self.version, name=self.name, creation_info=self.creation_info)


@dataclass
class _Attached:
    view: View
    committer: asyncio.Task[None] | None


class Volumes(VolumeFiles):
    """Answers the Volume RPCs; ``attach`` and ``detach`` are for the service that starts containers."""

    inferred: ClassVar[Mapping[str, str]] = {
        "VolumeReload": (
            "what the container wrote is committed first, so that a reload loses nothing; either "
            "version refuses it while a file is open."
        ),
        "VolumePutFiles2": (
            "how many files there are is not limited; on Modal a version 1 volume holds 500,000 and a directory of a "
            "version 2 volume 262,144."
        ),
        "VolumeGetFile2": (
            "links are followed at every name of a path, in all RPCs; not those with an absolute target, which means "
            "something in a container alone."
        ),
        "VolumeListFiles2": "a link to a directory shows what is in that, as ls does; any other link shows itself.",
        "VolumeCopyFiles2": "links are treated as cp treats them: a recursive copy keeps them.",
        "VolumeRemoveFile2": "a link is removed, never what it points at.",
        "VolumeCommit": "the last writer wins per file; what a container did not touch is not part of its commit.",
    }

    def __init__(self, state: StateDir, blobs: Blobs, environments: Environments) -> None:
        self.open_files: Callable[[str], Collection[str]] | None = None
        """Told a container id, returns what it has open: paths as it sees them, or ``/proc/<pid>/fd/<n>`` links."""
        self.before_commit: Callable[[str], Awaitable[None]] | None = None
        """Awaited with the volume's name before every commit; None costs nothing."""
        self._volumes = Registry("Volume", "vo", Volume, environments, state.journal, on_delete=self._release_all)
        self._records = VolumeRecords(state.journal)
        self._attached: dict[tuple[str, str], _Attached] = {}
        self._views = state.folder("views")
        self._journal = state.journal
        self._under_way: set[asyncio.Task[None]] = set()
        super().__init__(state.files, BlockStore(state.folder("blocks")), blobs)
        kept = self._records.load()
        for volume in self._volumes.all():
            nodes = kept.get(volume.object_id, {})
            volume.tree = Tree(nodes, self._records.writer(volume.object_id))
            self._blocks.restore(block for node in nodes.values() for block in node.blocks)
        self._blocks.clear_orphans(state.orphaned_before)

    def metadata(self, volume_id: str) -> api_pb2.VolumeMetadata:
        return self._volumes.get(volume_id).metadata

    async def attach(self, volume_id: str, container_id: str, *, background_commits: bool = True) -> Path:
        """Return the container's own writable directory of the volume's files, as they were last committed.

        The same directory for the same container however often it is called. With ``background_commits`` what the
        container writes is committed every few seconds without its asking.
        """
        volume = self._volumes.get(volume_id)
        async with volume.changing:
            attached = self._attached.get((volume_id, container_id))
            if attached is None:
                view = View(self._views / volume_id / container_id, self._blocks)
                await asyncio.to_thread(view.update, volume.tree.nodes())
                committer = None
                if background_commits:
                    committer = asyncio.create_task(self._keep_committing(volume_id, container_id))
                attached = self._attached[volume_id, container_id] = _Attached(view, committer)
        return attached.view.root

    async def detach(self, volume_id: str, container_id: str) -> None:
        """Commit what the container, now ended, left uncommitted and remove its directory. Repeating it is harmless."""
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
            await asyncio.to_thread(attached.view.close)

    async def VolumeGetOrCreate(
        self, request: api_pb2.VolumeGetOrCreateRequest, caller: Caller
    ) -> api_pb2.VolumeGetOrCreateResponse:
        volume, new = self._volumes.get_or_create(
            request.deployment_name, request.environment_name, request.object_creation_type
        )
        if new:
            volume.tree = Tree(changed=self._records.writer(volume.object_id))
            volume.version = request.version or api_pb2.VOLUME_FS_VERSION_V1
            self._volumes.save(volume)
        return message(
            api_pb2.VolumeGetOrCreateResponse,
            volume_id=volume.object_id,
            version=volume.version,
            metadata=volume.metadata,
        )

    async def VolumeGetById(
        self, request: api_pb2.VolumeGetByIdRequest, caller: Caller
    ) -> api_pb2.VolumeGetByIdResponse:
        volume = self._volumes.get(request.volume_id)
        return api_pb2.VolumeGetByIdResponse(volume_id=volume.object_id, metadata=volume.metadata)

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

    async def VolumeRename(self, request: api_pb2.VolumeRenameRequest, caller: Caller) -> Empty:
        self._volumes.rename(request.volume_id, request.name)
        return Empty()

    async def VolumeDelete(self, request: api_pb2.VolumeDeleteRequest, caller: Caller) -> Empty:
        self._volumes.delete(request.volume_id)
        return Empty()

    async def VolumeHeartbeat(self, request: api_pb2.VolumeHeartbeatRequest, caller: Caller) -> Empty:
        self._volumes.heartbeat(request.volume_id)
        return Empty()

    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest, caller: Caller) -> api_pb2.VolumeCommitResponse:
        container_id = caller.container_id or optional(request, "container_id") or ""
        await self._commit(request.volume_id, container_id)
        # Without this the SDK reloads, which fails while a file is open: a log could never be committed as it grows.
        return message(api_pb2.VolumeCommitResponse, skip_reload=True)

    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest, caller: Caller) -> Empty:
        await self._to_the_end(self._reload(request.volume_id, caller.container_id or ""))
        return Empty()

    async def _reload(self, volume_id: str, container_id: str) -> None:
        volume = self._volumes.get(volume_id)
        view = self._attached_view(volume_id, container_id)
        async with volume.changing:
            if await asyncio.to_thread(self._has_open_files, view, volume_id, container_id):
                # The SDK's ``Volume.reload`` looks for "there are open files preventing the operation" before it goes
                # and finds out which file it is. It expects NotFoundError or ConflictError: FAILED_PRECONDITION.
                raise GRPCError(
                    Status.FAILED_PRECONDITION, "there are open files preventing the operation: close them, then reload"
                )
            await self._merge(volume, view)
            await asyncio.to_thread(view.update, volume.tree.nodes())

    def _find(self, volume_id: str) -> tuple[Tree, asyncio.Lock]:
        volume = self._volumes.get(volume_id)
        return volume.tree, volume.changing

    async def _commit(self, volume_id: str, container_id: str) -> None:
        await self._to_the_end(self._commit_now(volume_id, container_id))

    async def _to_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something that goes on if the caller hangs up.

        Cancelled half-way, it would forget changes that the view already counts as committed.
        """
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _commit_now(self, volume_id: str, container_id: str) -> None:
        volume = self._volumes.get(volume_id)
        if self.before_commit is not None:
            await self.before_commit(volume.name)
        view = self._attached_view(volume_id, container_id)
        async with volume.changing:
            await self._merge(volume, view)

    async def _merge(self, volume: Volume, view: View) -> None:
        try:
            changes = await asyncio.to_thread(view.changes)
        except OSError as error:
            if not room.unwritable(error):
                raise
            # The view is as it was: the next commit finds the same changes.
            raise GRPCError(Status.RESOURCE_EXHAUSTED, self._journal.words(error)) from error
        self._apply(volume.tree, changes)

    def _apply(self, tree: Tree, changes: Mapping[str, Node | None]) -> None:
        gone: list[Node] = []
        # What is in a directory goes before the directory, and comes after it.
        for path in sorted((path for path, node in changes.items() if node is None), reverse=True):
            gone += tree.discard(path)
        for path in sorted(changes):
            if (node := changes[path]) is not None:
                gone += tree.put(path, node)
        self._release(gone)

    def _attached_view(self, volume_id: str, container_id: str) -> View:
        attached = self._attached.get((volume_id, container_id))
        if attached is None:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Volume {volume_id} is not mounted here: commit and reload work only in a container that mounts it",
            )
        return attached.view

    def _has_open_files(self, view: View, volume_id: str, container_id: str) -> bool:
        """Whether something that the container has open is in the view."""
        opened = self.open_files(container_id) if self.open_files is not None else ()
        mounted = f"{MOUNT_ROOT}/{volume_id}/"
        if any(f"{path}/".startswith(mounted) for path in opened):
            return True
        # By inode where the container sees it under another name.
        return bool(opened) and not view.inodes().isdisjoint(_inodes(opened))

    async def _keep_committing(self, volume_id: str, container_id: str) -> None:
        while True:
            await asyncio.sleep(BACKGROUND_COMMIT_SECONDS)
            try:
                await self._commit(volume_id, container_id)
            except GRPCError as error:
                if error.status is Status.RESOURCE_EXHAUSTED:
                    log.warning("background commit of volume %s: %s", volume_id, error.message)
                    continue
                log.info("no more background commits of %s: %s", volume_id, error.message)
                return
            except Exception:
                # A loop's boundary: the next commit may succeed, and the one at the end reports.
                log.exception("background commit of volume %s by container %s failed", volume_id, container_id)

    def _release_all(self, volume: Volume) -> None:
        self._records.forget(volume.object_id)
        self._release(volume.tree.nodes().values())


def _inodes(paths: Iterable[str]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for path in paths:
        try:
            status = Path(path).stat()
        except OSError:
            continue  # Closed meanwhile, or a name that means nothing outside of the container.
        found.add((status.st_dev, status.st_ino))
    return found
