"""Blobs: values that are too large for an RPC, sent over HTTP.

Owns the blobs on disk. How bytes are transferred is FileServer's matter.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.idempotency import READ, Anew
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.state import disk_space
from modalflow.emulator.state.state_dir import StateDir

#: A blob that no call refers to is removed once it is this old: until then a call or a client may be about to use it.
BLOB_SECONDS = 24 * 3600.0

#: The form of new_id, so that no id leads out of the folder.
_BLOB_ID = re.compile("bl-[A-Za-z0-9]{22}")


class Blobs(Service):
    """The Blob RPCs, and the receiver of uploaded blobs."""

    upload_is_verified = False

    def __init__(self, state: StateDir, addresses: Addresses) -> None:
        self._folder, self._journal = state.folder("blobs"), state.journal
        self._addresses = addresses

    async def put(self, data: bytes) -> str:
        """Keep the bytes as a blob; return its id."""
        blob_id = new_id("bl")
        await asyncio.to_thread(self._write, self._path(blob_id), data)
        return blob_id

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.write_bytes(data)
        except OSError:
            # A part of it is useless, and takes up room.
            path.unlink(missing_ok=True)
            raise

    async def read(self, blob_id: str) -> bytes:
        """Return a blob's bytes; NOT_FOUND for an unknown one."""
        return await asyncio.to_thread(self.path(blob_id).read_bytes)

    def path(self, blob_id: str) -> Path:
        """Return the file that holds a blob (read it only); NOT_FOUND for an unknown one."""
        path = self._path(blob_id)
        if not path.exists():
            raise GRPCError(Status.NOT_FOUND, f"Blob {blob_id!r} not found")
        return path

    def remove_unused(self, in_use: Callable[[], Collection[str]]) -> None:
        """Remove old blobs that are not in use. ``in_use`` is only called if there are any old ones."""
        limit = time.time() - BLOB_SECONDS
        old = [path for path in self._folder.iterdir() if path.stat().st_mtime < limit]
        used = in_use() if old else ()
        for path in old:
            if path.name not in used:
                path.unlink(missing_ok=True)

    async def receive_upload(self, blob_id: str, uploaded: Path) -> bytes:
        """Keep an uploaded blob."""
        uploaded.replace(self._path(blob_id))
        return b""

    @rpc(
        repeat=Anew("an unused address costs nothing; one from before a restart would be dead"),
        inferred="one address of any size, never a multipart upload.",
    )
    async def BlobCreate(self, request: api_pb2.BlobCreateRequest, caller: Caller) -> api_pb2.BlobCreateResponse:
        if request.content_length <= disk_space.SMALL:
            self._journal.make_room(disk_space.SMALL + disk_space.MARGIN)
        if words := self._addresses.short_of(request.content_length):
            raise GRPCError(Status.RESOURCE_EXHAUSTED, words)
        blob_id = new_id("bl")
        url = self._addresses.upload("blob", blob_id)
        # Never a multipart upload: even large bodies go over loopback into a file.
        urls = message(api_pb2.UploadUrlList, items=[url])
        return message(
            api_pb2.BlobCreateResponse, blob_id=blob_id, blob_ids=[blob_id], upload_urls=urls, upload_url=url
        )

    @rpc(repeat=READ)
    async def BlobGet(self, request: api_pb2.BlobGetRequest, caller: Caller) -> api_pb2.BlobGetResponse:
        path = self.path(request.blob_id)
        return api_pb2.BlobGetResponse(download_url=self._addresses.download(path, 0, path.stat().st_size))

    def _path(self, blob_id: str) -> Path:
        if not _BLOB_ID.fullmatch(blob_id):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{blob_id!r} is not the id of a blob")
        return self._folder / blob_id
