"""The RPCs of images, and the image for a definition.

Owns images as records: chains of layers, their totals, their builds. A layer's definition is read by recipe.py and
built by builder.py; names are in image_names.py. A container runs in the Python of the host, with the image's
variables, files and packages over it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import platform
import secrets as random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.containers.launch.hints import unexecuted
from modalflow.emulator.definitions.definition_check import refuse_unsupported
from modalflow.emulator.ids import new_id
from modalflow.emulator.images.builder import (
    Build,
    Builder,
    BuildFunctionError,
    BuildResult,
    StepError,
    secrets_to_redact,
)
from modalflow.emulator.images.building.build_mode import BuildMode, Execution
from modalflow.emulator.images.building.client_packages import ClientPackages
from modalflow.emulator.images.building.command_builder import CommandBuilder
from modalflow.emulator.images.building.debian_packages import without_installed
from modalflow.emulator.images.building.logged_program import Programs
from modalflow.emulator.images.building_functions import BuildingFunctions
from modalflow.emulator.images.dockerfile.copy_line import RecipeError, Source
from modalflow.emulator.images.image import Image
from modalflow.emulator.images.image_store import SUCCESS, ImageStore, builder_app_id
from modalflow.emulator.images.pip import InstallError
from modalflow.emulator.images.recipe import Recipe, read
from modalflow.emulator.logs.log_lines import Terminal, Unfinished, merged
from modalflow.emulator.logs.log_messages import item
from modalflow.emulator.rpc.failures import described
from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, seconds
from modalflow.emulator.services.environments import IMAGE_BUILDER_VERSION
from modalflow.emulator.services.mounts import Mounts
from modalflow.emulator.services.secrets import Secrets
from modalflow.emulator.state.state_dir import StateDir

log = logging.getLogger(__name__)

FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
TERMINATED = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED


class Images(Service):
    """The Image RPCs, except those about names."""

    def __init__(
        self,
        state: StateDir,
        store: ImageStore,
        mounts: Mounts,
        secrets: Secrets,
        programs: Programs,
        functions: BuildingFunctions,
        build_mode: BuildMode,
        clients: ClientPackages,
    ) -> None:
        self._store, self._mounts, self._secrets, self._functions = store, mounts, secrets, functions
        self._folder = state.folder("images")
        self._state, self._programs, self._mode = state, programs, build_mode
        self._clients = clients
        self._builds: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all builds and discard their results."""
        for task in self._builds:
            task.cancel()
        while self._builds:
            await asyncio.wait(set(self._builds))

    @rpc(
        repeat=CHANGE,
        inferred=(
            "`debian_slim` and `from_registry` mean the host's root and Python. RUN is executed in layers over them if "
            "root isolates containers. Otherwise only installations by pip are, and other commands fail the build."
        ),
    )
    async def ImageGetOrCreate(
        self, request: api_pb2.ImageGetOrCreateRequest, caller: Caller
    ) -> api_pb2.ImageGetOrCreateResponse:
        """Return the image of this definition, without a result while it is being built."""
        refuse_unsupported(request)
        how = await self._mode.execution()
        if not how.runs_commands and not self._store.root.is_host:
            raise GRPCError(Status.FAILED_PRECONDITION, f"No image can be built over --base. {how.refusal}")
        identity = self._identity(request, how)
        image = None if request.force_build or request.ignore_cache else self._store.cached(identity)
        if image is None:
            image = self._begin(request, identity, how)
        answer = message(api_pb2.ImageGetOrCreateResponse, image_id=image.image_id)
        if image.build.result is not None:
            answer.result.CopyFrom(image.build.result)
            answer.metadata.CopyFrom(image.metadata)
        return answer

    @rpc(repeat=READ)
    async def ImageJoinStreaming(
        self, request: api_pb2.ImageJoinStreamingRequest, caller: Caller
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        """Stream the build's log and then its result; after ``timeout`` seconds the SDK asks again."""
        image = self._store.get(request.image_id)
        build = image.build
        number = request.last_entry_id.partition("-")[0]
        sent = int(number) if number.isdecimal() else 0
        unfinished = Unfinished()
        terminal = Terminal(build.entries(unfinished, 0, sent))
        deadline = asyncio.get_running_loop().time() + seconds(request.timeout)
        while True:
            over = build.result is not None
            left = deadline - asyncio.get_running_loop().time()
            entries = build.entries(unfinished, sent)
            sent += len(entries)
            lines = [item(entry) for entry in terminal.shown(merged(entries))]
            if over or left <= 0:
                lines += [item(entry) for entry in terminal.left()]
            if lines:
                yield message(api_pb2.ImageJoinStreamingResponse, task_logs=lines, entry_id=f"{sent}-0")
            if over:
                yield message(
                    api_pb2.ImageJoinStreamingResponse,
                    result=build.result,
                    metadata=image.metadata,
                    entry_id=f"{sent}-0",
                    eof=True,
                )
                return
            if left <= 0:
                return
            await build.changed.until(partial(build.has_news, sent), left)

    @rpc(repeat=READ)
    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest, caller: Caller) -> api_pb2.ImageFromIdResponse:
        image = self._store.get(request.image_id)
        return message(api_pb2.ImageFromIdResponse, image_id=image.image_id, metadata=image.metadata)

    @rpc(repeat=READ, inferred="the layers from the lowest up, each with the app of its log.")
    async def ImageBuildChainGet(
        self, request: api_pb2.ImageBuildChainGetRequest, caller: Caller
    ) -> api_pb2.ImageBuildChainGetResponse:
        """Return the layers from the lowest up, each with the app of its log (inferred)."""
        answer = api_pb2.ImageBuildChainGetResponse()
        for layer in reversed(list(self._store.chain(self._store.get(request.image_id)))):
            step = answer.build_steps.add(
                image_id=layer.image_id, builder_app_id=builder_app_id(layer.image_id), builder_task_id=""
            )
            step.started_at.FromNanoseconds(int((layer.build.started_at - 1) * 1e9))
            step.finished_at.FromNanoseconds(int(((layer.build.finished_at or time.time()) + 1) * 1e9))
        return answer

    @rpc(repeat=CHANGE, needs_room=False, inferred="running containers keep the image until they end.")
    async def ImageDelete(self, request: api_pb2.ImageDeleteRequest, caller: Caller) -> Empty:
        image = self._store.get(request.image_id)
        if image.build.result is None:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Image {request.image_id!r} is being built")
        self._store.delete(image)
        return Empty()

    def _begin(self, request: api_pb2.ImageGetOrCreateRequest, identity: str, how: Execution) -> Image:
        definition = request.image
        bases = {base.docker_tag: self._store.get(base.image_id) for base in definition.base_images}
        values: dict[str, str] = {}
        for secret_id in definition.secret_ids:
            values |= self._secrets.values(secret_id)
        # Before anything is registered, because this may raise: a repetition must not find an image without a build.
        recipe: Recipe | RecipeError
        try:
            recipe = read(
                definition,
                is_global=request.namespace == api_pb2.DEPLOYMENT_NAMESPACE_GLOBAL,
                bases={tag: replace(base.settings, base=base.image_id) for tag, base in bases.items()},
                context=self._context(definition),
                secrets=values,
                root=self._store.root if how.runs_commands else None,
            )
            below = self._store.find(recipe.settings.base)
            recipe = without_installed(recipe, self._store.tree(BuildResult() if below is None else below.made))
        except RecipeError as error:
            recipe = error
        image = Image(
            image_id=new_id("im"),
            # A repeated build is a new image for all images built on it.
            identity=_hash(identity, random.token_hex(8)) if request.force_build or request.ignore_cache else identity,
            bases=tuple(base.image_id for base in bases.values()),
            builder_version=request.builder_version or IMAGE_BUILDER_VERSION,
            build=Build(secrets=secrets_to_redact(values.values())),
        )
        if isinstance(recipe, RecipeError):
            image.build.end(FAILURE, str(recipe))
        else:
            self._make(image, recipe, request, how)
        self._store.add(image)
        if not request.ignore_cache:
            self._store.cache(identity, image)
        return image

    def _make(self, image: Image, recipe: Recipe, request: api_pb2.ImageGetOrCreateRequest, how: Execution) -> None:
        """Start the build, or end it if there is nothing to do."""
        image.settings = recipe.settings
        below = self._store.find(recipe.settings.base)
        image.made = below.made if below is not None else BuildResult()
        image.packages = below.packages if below is not None else {}
        is_same_path = below is None or recipe.settings.variables.get("PATH") == below.variables.get("PATH")
        if (
            not recipe.has_work
            and (is_same_path or not how.runs_commands)
            and not request.image.HasField("build_function")
        ):
            image.build.end(SUCCESS)
            return
        task = asyncio.get_running_loop().create_task(self._build(image, recipe, request, how))
        self._builds.add(task)
        task.add_done_callback(partial(self._build_over, image))

    def _build_over(self, image: Image, task: asyncio.Task[None]) -> None:
        self._builds.discard(task)
        if image.build.result is None:
            # Even the report of the failure failed. The callers waiting for the build still get an answer.
            image.build.end(FAILURE, "the build ended without a result; the control plane's log has the reason")

    async def _build(
        self, image: Image, recipe: Recipe, request: api_pb2.ImageGetOrCreateRequest, how: Execution
    ) -> None:
        build = image.build
        try:
            builder = self._builder(how)
            build.log(f"Building image {image.image_id}\n")
            if request.image.HasField("build_function"):
                image.made = await self._built_by_function(image, request, builder)
            else:
                image.made = await builder.make(image.identity, recipe, image.made, build)
            image.packages = await asyncio.to_thread(self._store.packages, image.made)
            build.log(f"Built image {image.image_id}\n")
            build.end(SUCCESS)
        except InstallError as error:
            hint = unexecuted(recipe.settings.missing)
            build.end(FAILURE, f"{error}\n(Perhaps because {hint})" if hint else str(error))
        except (StepError, BuildFunctionError) as error:
            build.end(FAILURE, str(error))
        except OSError as error:
            build.end(FAILURE, described(error))
        except asyncio.CancelledError:
            build.end(TERMINATED, "the local control plane is stopping")
        except BaseException as error:
            # A task's boundary: a client waits for this build, even after an unexpected error.
            log.exception("image %s could not be built", image.image_id)
            build.end(FAILURE, f"the local control plane failed: {described(error)}")
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._store.save(image)

    def _builder(self, how: Execution) -> Builder | CommandBuilder:
        if how.runs_commands:
            return CommandBuilder(self._state, self._store.layers, self._programs, self._store.root, self._clients)
        return Builder(self._state, self._store.layers, self._programs, how.refusal)

    async def _built_by_function(
        self, image: Image, request: api_pb2.ImageGetOrCreateRequest, builder: Builder | CommandBuilder
    ) -> BuildResult:
        if not request.build_function_id:
            raise BuildFunctionError("there is no function to build the image with")
        image.build.log("=> Step 0: running the function\n")
        with tempfile.TemporaryDirectory(prefix="draft-", dir=self._folder) as name:
            written = Path(name)
            content = request.image.build_function.input
            await self._functions.run(request.build_function_id, content, image.build, written)
            return await asyncio.to_thread(builder.adopt, image.identity, image.made, written)

    def _context(self, definition: api_pb2.Image) -> dict[str, Source]:
        """Return the files for COPY, by absolute path."""
        context: dict[str, Source] = {}
        if definition.context_mount_id:
            for file in self._mounts.content(definition.context_mount_id):
                context[f"/{file.filename.lstrip('/')}"] = Source(sha256=file.sha256_hex, mode=file.mode or 0o644)
        for sent in definition.context_files:
            context[f"/{sent.filename.lstrip('/')}"] = Source(data=sent.data)
        return context

    def _identity(self, request: api_pb2.ImageGetOrCreateRequest, how: Execution) -> str:
        """Return a hash of the definition, with temporary ids replaced by their content."""
        plain = api_pb2.Image()
        plain.CopyFrom(request.image)
        parts: list[str] = [sys.base_prefix, platform.python_version(), request.builder_version, str(request.namespace)]
        parts += [*how.identity, *filter(None, (self._store.root.identity,))]
        for base in plain.base_images:
            base.image_id = self._store.get(base.image_id).identity
        for secret_id in plain.secret_ids:
            parts += [f"{name}={value}" for name, value in sorted(self._secrets.values(secret_id).items())]
        plain.ClearField("secret_ids")
        if plain.context_mount_id:
            files = self._mounts.content(plain.context_mount_id)
            parts += sorted(f"{file.filename}\0{file.sha256_hex}\0{file.mode}" for file in files)
            plain.ClearField("context_mount_id")
        return _hash(plain.SerializeToString(deterministic=True).hex(), *parts)


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:32]
