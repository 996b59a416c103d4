"""Mounts: lists of files that clients uploaded, and the directory trees for containers.

Owns the content of mounts, and their records. The content of files is in the file store of the state folder; rootfs.py
lays a tree over the root of a container.
"""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.idempotency import CHANGE, READ, Anew
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal, Table
from modalflow.emulator.state.state_dir import StateDir

MountName = tuple[int, str, str]
"""The namespace, the environment and the name that a mount is deployed under."""


class MountRecords:
    """The records of mounts: their lists of files, and their names."""

    def __init__(self, journal: Journal) -> None:
        self._mounts: Table[list[api_pb2.MountFile]] = journal.table("mounts", _listed)
        self._names: Table[str] = journal.table("mount_names", str)

    def mounts(self) -> Iterator[tuple[str, list[api_pb2.MountFile]]]:
        for _, mount_id, record in self._mounts.load():
            yield mount_id, list(api_pb2.MountGetOrCreateRequest.FromString(record).files)

    def names(self) -> Iterator[tuple[MountName, str]]:
        for environment, key, mount_id in self._names.load():
            namespace, _, name = key.partition("/")
            yield (int(namespace), environment, name), mount_id

    def put(self, mount_id: str, files: list[api_pb2.MountFile]) -> None:
        self._mounts.put("", mount_id, files)

    def name(self, key: MountName, mount_id: str) -> None:
        self._names.put(key[1], f"{key[0]}/{key[2]}", mount_id)

    def unname(self, key: MountName) -> None:
        self._names.discard(key[1], f"{key[0]}/{key[2]}")


def _listed(files: list[api_pb2.MountFile]) -> bytes:
    return api_pb2.MountGetOrCreateRequest(files=files).SerializeToString()


class Mounts(Service):
    """The Mount RPCs, and the trees of mounts."""

    def __init__(self, state: StateDir, blobs: Blobs, environments: Environments) -> None:
        self._files = state.files
        self._trees = state.folder("layers")
        self._blobs = blobs
        self._environments = environments
        self._mounts: dict[str, list[api_pb2.MountFile]] = {}
        self._named: dict[tuple[int, str, str], str] = {}
        self._records = MountRecords(state.journal)
        self._mounts.update(self._records.mounts())
        self._named.update(self._records.names())
        self._files.clear_orphans(
            {file.sha256_hex for files in self._mounts.values() for file in files}, state.orphaned_before
        )
        environments.subscribe(self)

    def tree(self, placed: Iterable[tuple[str, str]], image: Path | None = None) -> Path:
        """Return a directory with the files of the mounts, as they are in the root of a container.

        ``placed`` are (mount id, path of the mount); later ones replace earlier ones, and all are placed over the tree
        of an ``image``, whose path identifies its content. The same files give the same directory, so a second
        container of a function costs nothing. Never write to it.
        """
        files: dict[str, api_pb2.MountFile] = {}
        for mount_id, prefix in placed:
            for file in self.content(mount_id):
                # normpath: no number of ".." in the COPY of an image leads above the root.
                files[posixpath.normpath(f"/{prefix}/{file.filename}").replace("//", "/")] = file
        digest = hashlib.sha256(str(image or "").encode())
        for name in sorted(files):
            digest.update(f"{name}\0{files[name].sha256_hex}\0{files[name].mode}\n".encode())
        tree = self._trees / digest.hexdigest()[:32]
        if not tree.exists():
            incoming = self._trees / new_id("tmp")
            try:
                if image is not None:
                    shutil.copytree(image, incoming, symlinks=True)
                (incoming / "root").mkdir(parents=True, exist_ok=True)
                incoming.chmod(0o755)
                for name, file in files.items():
                    target = incoming / name.lstrip("/")
                    make_parents(incoming, target.parent)
                    target.unlink(missing_ok=True)
                    shutil.copyfile(self._files.path(file.sha256_hex), target)
                    target.chmod(stat.S_IMODE(file.mode) & 0o777 or 0o644)
                incoming.rename(tree)
            except OSError:
                shutil.rmtree(incoming, ignore_errors=True)
                raise
        return tree

    def content(self, mount_id: str) -> list[api_pb2.MountFile]:
        files = self._mounts.get(mount_id)
        if files is None:
            raise GRPCError(Status.NOT_FOUND, f"Mount {mount_id!r} not found")
        return files

    @rpc(
        repeat=CHANGE,
        inferred=(
            "Modal's own mounts (its client, a standalone Python) are empty: containers have the host's packages."
        ),
    )
    async def MountGetOrCreate(
        self, request: api_pb2.MountGetOrCreateRequest, caller: Caller
    ) -> api_pb2.MountGetOrCreateResponse:
        name = request.deployment_name
        if not name:
            return self._made(new_id("mo"), list(request.files))
        # Modal's own mounts are in the global namespace, the user's are in an environment.
        is_global = request.namespace == api_pb2.DEPLOYMENT_NAMESPACE_GLOBAL
        environment = "" if is_global else self._environments.resolve(request.environment_name)
        key = (request.namespace, environment, name)
        mount_id = self._named.get(key)
        mode = request.object_creation_type
        if mode == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
            if mount_id is None:
                if not is_global:
                    raise GRPCError(Status.NOT_FOUND, f"Mount {name!r} not found")
                # The client, its dependencies or a standalone Python: empty, because containers have those of the host.
                mount_id = new_id("mo")
                self._name(key, mount_id)
                self._keep(mount_id, [])
            return self._made(mount_id, self._mounts[mount_id])
        if mount_id is not None and mode == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Mount {name!r} already exists")
        made = self._made(mount_id or new_id("mo"), list(request.files))
        if mount_id is None:
            self._name(key, made.mount_id)
        return made

    def _name(self, key: MountName, mount_id: str) -> None:
        self._named[key] = mount_id
        self._records.name(key, mount_id)

    def _keep(self, mount_id: str, files: list[api_pb2.MountFile]) -> None:
        if self._mounts.get(mount_id) != files:
            self._mounts[mount_id] = files
            self._records.put(mount_id, files)

    def environment_changed(self, old: str, new: str | None) -> None:
        for key in [key for key in self._named if key[1] == old]:
            mount_id = self._named.pop(key)
            self._records.unname(key)
            if new is None:
                # Functions may still refer to the mount by its id.
                continue
            self._named[key[0], new, key[2]] = mount_id
            self._records.name((key[0], new, key[2]), mount_id)

    def _made(self, mount_id: str, files: list[api_pb2.MountFile]) -> api_pb2.MountGetOrCreateResponse:
        for file in files:
            if ".." in file.filename.split("/") or "\0" in file.filename or not file.filename.strip("/"):
                raise GRPCError(
                    Status.INVALID_ARGUMENT,
                    f"{file.filename!r} is not the path of a file in a mount: it must not be empty or contain '..'",
                )
            if not self._files.has(file.sha256_hex):
                raise GRPCError(
                    Status.FAILED_PRECONDITION, f"File {file.filename!r} was not uploaded; call MountPutFile first"
                )
        self._keep(mount_id, files)
        digest = hashlib.sha256()
        for file in sorted(files, key=lambda f: f.filename):
            digest.update(f"{file.filename}\0{file.sha256_hex}\n".encode())
        return api_pb2.MountGetOrCreateResponse(
            mount_id=mount_id,
            handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest.hexdigest()),
        )

    @rpc(repeat=Anew("a file is known by its content: the repetition finds it there"))
    async def MountPutFile(self, request: api_pb2.MountPutFileRequest, caller: Caller) -> api_pb2.MountPutFileResponse:
        """Keep the file; without content, return whether it exists. The SDK repeats this until it does."""
        which = request.WhichOneof("data_oneof")
        if which is not None and not self._files.has(request.sha256_hex):
            if which == "data":
                is_same = hashlib.sha256(request.data).hexdigest() == request.sha256_hex
                if is_same:
                    await asyncio.to_thread(self._files.put_as, request.sha256_hex, request.data)
            else:
                # Not through memory: the file may be larger.
                path = self._blobs.path(request.data_blob_id)
                is_same = await asyncio.to_thread(self._files.move_in, path, request.sha256_hex)
            if not is_same:
                raise GRPCError(Status.INVALID_ARGUMENT, f"The content sent for {request.sha256_hex} has another hash")
        return message(api_pb2.MountPutFileResponse, exists=self._files.has(request.sha256_hex), checked_at=_now())

    @rpc(repeat=READ)
    async def MountBatchedCheckExistence(
        self, request: api_pb2.MountBatchedCheckExistenceRequest, caller: Caller
    ) -> api_pb2.MountBatchedCheckExistenceResponse:
        missing = [sha for sha in request.sha256_hex_hashes if not self._files.has(sha)]
        return message(api_pb2.MountBatchedCheckExistenceResponse, missing_sha256_hex_hashes=missing, checked_at=_now())


def make_parents(root: Path, folder: Path) -> None:
    """Make the folder and its parents, with the modes of the host's folders of the same path.

    A tree over the host's root decides the mode of every folder in it: /tmp must stay writable for all.
    """
    missing = []
    while folder != root and not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir()
        try:
            host = Path("/", made.relative_to(root)).stat()
        except OSError:
            made.chmod(0o755)
        else:
            made.chmod(stat.S_IMODE(host.st_mode) | 0o555)


def _now() -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(time.time_ns())
    return timestamp
