"""Client access to a Volume's files: list, upload, download, copy, remove.

Owns these RPCs, for both versions of Volumes, over the tree in volumes.py. File content never passes through an RPC
here. Uploads of version 1 come through MountPutFile, uploads of version 2 in blocks over HTTP. Downloads always use
HTTP.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.state.file_store import FileStore
from modalflow.emulator.volumes.block_store import BLOCK_BYTES, BlockStore
from modalflow.emulator.volumes.tree import Node, NodeKind, Tree, normalise, parents

log = logging.getLogger(__name__)

ENTRIES_PER_ANSWER = 1_000

_ENTRY_TYPES = {
    NodeKind.FILE: api_pb2.FileEntry.FILE,
    NodeKind.DIRECTORY: api_pb2.FileEntry.DIRECTORY,
    NodeKind.LINK: api_pb2.FileEntry.SYMLINK,
}


class VolumeFiles(Service, abc.ABC):
    """The file RPCs of Volumes."""

    upload_is_verified = True
    """Whether VolumePutFiles2 follows an upload, finds a missing block and refuses with the reason.

    If the upload itself were refused, the SDK would repeat it eleven times, over minutes.
    """

    def __init__(self, uploads: FileStore, blocks: BlockStore, addresses: Addresses) -> None:
        self._uploads, self._blocks, self._addresses = uploads, blocks, addresses

    @abc.abstractmethod
    def _find(self, volume_id: str) -> tuple[Tree, asyncio.Lock]:
        """Return a Volume's tree and the lock to hold while it changes; NOT_FOUND if the Volume is unknown."""

    @abc.abstractmethod
    async def _changed(self, volume_id: str, paths: int) -> None:
        """Handle a change of so many files in the Volume."""

    @rpc(repeat=READ)
    async def VolumeListFiles(
        self, request: api_pb2.VolumeListFilesRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFilesResponse]:
        async for entries in self._pages(request):
            yield api_pb2.VolumeListFilesResponse(entries=entries)

    @rpc(
        repeat=READ,
        inferred=("a link to a directory shows the directory's content, as ls does; any other link shows itself."),
    )
    async def VolumeListFiles2(
        self, request: api_pb2.VolumeListFiles2Request, caller: Caller
    ) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        async for entries in self._pages(request):
            yield api_pb2.VolumeListFiles2Response(entries=entries)

    @rpc(
        repeat=READ,
        inferred=(
            "links are followed at every name of a path, in all RPCs; except those with an absolute target, "
            "meaningful only in a container."
        ),
    )
    async def VolumeGetFile2(
        self, request: api_pb2.VolumeGetFile2Request, caller: Caller
    ) -> api_pb2.VolumeGetFile2Response:
        tree, _ = self._find(request.volume_id)
        node = tree.file(normalise(request.path))
        start = min(request.start, node.size)
        end = min(start + request.len, node.size) if request.len else node.size
        urls = []
        for index in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES) if end > start else 0):
            first, last = max(start, index * BLOCK_BYTES), min(end, (index + 1) * BLOCK_BYTES)
            path, offset = self._blocks.locate(node.blocks[index])
            urls.append(self._addresses.download(path, offset + first - index * BLOCK_BYTES, last - first))
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=node.size, start=start, len=end - start)

    def remove_unused(self) -> None:
        """Remove content without a file for a while, also if no Volume changes any more."""
        self._blocks.release(())

    @rpc(repeat=CHANGE)
    async def VolumePutFiles(self, request: api_pb2.VolumePutFilesRequest, caller: Caller) -> Empty:
        tree, changing = self._find(request.volume_id)
        names = [normalise(file.filename) for file in request.files]
        overwrite = not request.disallow_overwrite_existing_files
        _check_places(tree, [tree.place(name) for name in names], overwrite=overwrite)
        for file in request.files:
            if not self._uploads.has(file.sha256_hex):
                raise GRPCError(Status.FAILED_PRECONDITION, f"{file.filename!r} was not uploaded with MountPutFile")
        nodes: list[Node] = []
        try:
            for file in request.files:
                blocks, size = await asyncio.to_thread(self._split, self._uploads.path(file.sha256_hex))
                nodes.append(_file(optional(file, "mode"), size, blocks))
            async with changing:
                # Again: others may have changed the tree meanwhile.
                paths = [tree.place(name) for name in names]
                _check_places(tree, paths, overwrite=overwrite)
                # In one step: a kill leaves all of an upload or none, and its repetition finds the same free places.
                gone = [old for path, node in zip(paths, nodes, strict=True) for old in tree.put(path, node)]
        except BaseException:
            self._release(nodes)
            raise
        self._release(gone)
        await self._changed(request.volume_id, len(nodes))
        return Empty()

    @rpc(
        repeat=CHANGE,
        inferred=(
            "the number of files is not limited; on Modal a version 1 volume holds 500,000 and a directory "
            "of a version 2 volume 262,144."
        ),
    )
    async def VolumePutFiles2(
        self, request: api_pb2.VolumePutFiles2Request, caller: Caller
    ) -> api_pb2.VolumePutFiles2Response:
        tree, changing = self._find(request.volume_id)
        async with changing:
            paths = [tree.place(normalise(file.path)) for file in request.files]
            _check_places(tree, paths, overwrite=not request.disallow_overwrite_existing_files)
            contents = [_block_names(file) for file in request.files]
            missing = set(self._blocks.use([block for blocks in contents for block in blocks]))
            if missing:
                sizes = _sizes(request.files, contents)
                if words := self._addresses.short_of(sum(sizes[block] for block in missing) + BLOCK_BYTES):
                    raise GRPCError(Status.RESOURCE_EXHAUSTED, words)
                return api_pb2.VolumePutFiles2Response(missing_blocks=self._wanted(contents, missing))
            nodes = [
                _file(optional(file, "mode"), file.size, blocks)
                for file, blocks in zip(request.files, contents, strict=True)
            ]
            # In one step, as in version 1.
            gone = [old for path, node in zip(paths, nodes, strict=True) for old in tree.put(path, node)]
        self._release(gone)
        # The upload pays for assembling large files, and not the first container with the Volume.
        await asyncio.to_thread(self._put_together, nodes)
        await self._changed(request.volume_id, len(nodes))
        return api_pb2.VolumePutFiles2Response()

    @rpc(repeat=CHANGE)
    async def VolumeCopyFiles(self, request: api_pb2.VolumeCopyFilesRequest, caller: Caller) -> Empty:
        return await self._copy(request)

    @rpc(repeat=CHANGE, inferred="links are treated as cp treats them: a recursive copy keeps them.")
    async def VolumeCopyFiles2(self, request: api_pb2.VolumeCopyFiles2Request, caller: Caller) -> Empty:
        return await self._copy(request)

    @rpc(repeat=CHANGE, needs_room=False)
    async def VolumeRemoveFile(self, request: api_pb2.VolumeRemoveFileRequest, caller: Caller) -> Empty:
        return await self._remove(request)

    @rpc(repeat=CHANGE, needs_room=False, inferred="a link is removed, never its target.")
    async def VolumeRemoveFile2(self, request: api_pb2.VolumeRemoveFile2Request, caller: Caller) -> Empty:
        return await self._remove(request)

    async def _pages(
        self, request: api_pb2.VolumeListFilesRequest | api_pb2.VolumeListFiles2Request
    ) -> AsyncIterator[list[api_pb2.FileEntry]]:
        tree, _ = self._find(request.volume_id)
        listed = tree.listed(normalise(request.path), request.recursive)
        limit = optional(request, "max_entries")
        # The nodes as they are now. The entries are made page by page, so that other tasks run between two pages.
        nodes = listed[: limit or None]
        for first in range(0, len(nodes), ENTRIES_PER_ANSWER):
            yield [_entry(path, node) for path, node in nodes[first : first + ENTRIES_PER_ANSWER]]
            await asyncio.sleep(0)

    def _split(self, path: Path) -> tuple[tuple[str, ...], int]:
        with path.open("rb") as file:
            return self._blocks.keep_file(file.fileno())

    def _wanted(
        self, contents: list[tuple[str, ...]], missing: set[str]
    ) -> Iterable[api_pb2.VolumePutFiles2Response.MissingBlock]:
        for file_index, blocks in enumerate(contents):
            for block_index, block in enumerate(blocks):
                if block in missing:
                    missing.discard(block)
                    yield api_pb2.VolumePutFiles2Response.MissingBlock(
                        file_index=file_index,
                        block_index=block_index,
                        put_url=self._addresses.upload("block", block),
                    )

    async def receive_upload(self, block: str, uploaded: Path) -> bytes:
        """Keep an uploaded block; ValueError if it is not the announced one."""
        await asyncio.to_thread(self._blocks.receive, uploaded, block)
        return block.encode()

    async def _copy(self, request: api_pb2.VolumeCopyFilesRequest | api_pb2.VolumeCopyFiles2Request) -> Empty:
        tree, changing = self._find(request.volume_id)
        async with changing:
            sources = [normalise(path) for path in request.src_paths]
            into = request.dst_path.endswith("/")
            copies = tree.copies(sources, normalise(request.dst_path), request.recursive, into)
            for path, node in copies.items():
                self._blocks.use(node.blocks)
                self._release(tree.put(path, node))
        await self._changed(request.volume_id, len(copies))
        return Empty()

    async def _remove(self, request: api_pb2.VolumeRemoveFileRequest | api_pb2.VolumeRemoveFile2Request) -> Empty:
        tree, changing = self._find(request.volume_id)
        async with changing:
            gone = tree.remove(normalise(request.path), request.recursive)
            self._release(gone)
        await self._changed(request.volume_id, len(gone))
        return Empty()

    def _put_together(self, nodes: Iterable[Node]) -> None:
        """Assemble each file of several blocks in one piece, unless it is no longer needed.

        If the disk is too full now, the next container with this file causes another attempt.
        """
        for node in nodes:
            if len(node.blocks) > 1 and not self._blocks.use(node.blocks):
                try:
                    self._blocks.assemble(node.blocks, node.size)
                except OSError as error:
                    log.warning("a file of %d bytes could not be assembled ahead of its use: %s", node.size, error)
                finally:
                    self._blocks.release(node.blocks)

    def _release(self, nodes: Iterable[Node]) -> None:
        self._blocks.release([block for node in nodes for block in node.blocks])


def _check_places(tree: Tree, paths: list[str], *, overwrite: bool) -> None:
    directories = {above for path in paths for above in parents(path)}
    for path in paths:
        tree.check_place(path, overwrite)
        if path in directories:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{path!r} is both a file and a directory of this upload")


def _block_names(file: api_pb2.VolumePutFiles2Request.File) -> tuple[str, ...]:
    expected = -(-file.size // BLOCK_BYTES)
    if len(file.blocks) != expected:
        raise GRPCError(
            Status.INVALID_ARGUMENT,
            f"{file.path!r} of {file.size} bytes came with {len(file.blocks)} blocks; expected {expected}",
        )
    return tuple(block.contents_sha256.hex() for block in file.blocks)


def _sizes(files: Sequence[api_pb2.VolumePutFiles2Request.File], contents: list[tuple[str, ...]]) -> dict[str, int]:
    return {
        block: min(BLOCK_BYTES, file.size - index * BLOCK_BYTES)
        for file, blocks in zip(files, contents, strict=True)
        for index, block in enumerate(blocks)
    }


def _file(mode: int | None, size: int, blocks: tuple[str, ...]) -> Node:
    return Node(NodeKind.FILE, mode or 0o644, time.time_ns(), size=size, blocks=blocks)


def _entry(path: str, node: Node) -> api_pb2.FileEntry:
    return message(
        api_pb2.FileEntry,
        path=path,
        type=_ENTRY_TYPES[node.kind],
        mtime=node.mtime_ns // 1_000_000_000,
        size=node.size,
    )
