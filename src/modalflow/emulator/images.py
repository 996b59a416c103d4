"""Images: recorded, not built. Containers run in the Python of the host, with the image's variables and copied files.

Owns the chain of layers and what of it has an effect here: ENV, WORKDIR and COPY. Commands (RUN pip install …) are
recorded and not run: the host must have what they would have installed.
"""

from __future__ import annotations

import hashlib
import platform
import shlex
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.environments import IMAGE_BUILDER_VERSION, Environments
from modalflow.emulator.ids import new_id
from modalflow.emulator.results import success_of_build
from modalflow.emulator.rpc import Caller, Service
from modalflow.emulator.wire import message


@dataclass
class Image:
    """One layer, with all that the layers below it add up to."""

    image_id: str
    variables: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    copied: list[tuple[str, str]] = field(default_factory=list)
    """(mount id, the path that its files were copied under)."""
    builder_version: str = IMAGE_BUILDER_VERSION

    @property
    def metadata(self) -> api_pb2.ImageMetadata:
        return message(
            api_pb2.ImageMetadata,
            image_builder_version=self.builder_version,
            python_version_info=f"Python {platform.python_version()}",
            workdir=self.workdir or None,
        )


class Images(Service):
    """Answers the Image RPCs."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._images: dict[str, Image] = {}
        self._by_definition: dict[bytes, str] = {}
        self._tags: dict[tuple[str, str], str] = {}

    def get(self, image_id: str) -> Image:
        image = self._images.get(image_id)
        if image is None:
            raise GRPCError(Status.NOT_FOUND, f"Image {image_id!r} not found")
        return image

    async def ImageGetOrCreate(
        self, request: api_pb2.ImageGetOrCreateRequest, caller: Caller
    ) -> api_pb2.ImageGetOrCreateResponse:
        definition = request.image
        if request.build_function_id or definition.HasField("build_function"):
            raise GRPCError(Status.UNIMPLEMENTED, "The local control plane does not have Image.run_function")
        # A layer that differs only in its build is the same layer: redeploying must not make a new image.
        key = hashlib.sha256(definition.SerializeToString(deterministic=True)).digest()
        image_id = self._by_definition.get(key)
        if image_id is None:
            image = self._layered(definition)
            image.builder_version = request.builder_version or IMAGE_BUILDER_VERSION
            image_id = self._by_definition[key] = image.image_id
            self._images[image_id] = image
        return message(
            api_pb2.ImageGetOrCreateResponse,
            image_id=image_id,
            result=success_of_build(),
            metadata=self._images[image_id].metadata,
        )

    async def ImageFromId(self, request: api_pb2.ImageFromIdRequest, caller: Caller) -> api_pb2.ImageFromIdResponse:
        image = self.get(request.image_id)
        return message(api_pb2.ImageFromIdResponse, image_id=image.image_id, metadata=image.metadata)

    async def ImagePublish(self, request: api_pb2.ImagePublishRequest, caller: Caller) -> api_pb2.ImagePublishResponse:
        self.get(request.image_id)
        self._tags[self._environments.resolve(request.environment_name), request.tag] = request.image_id
        return api_pb2.ImagePublishResponse()

    async def ImageGetByTag(
        self, request: api_pb2.ImageGetByTagRequest, caller: Caller
    ) -> api_pb2.ImageGetByTagResponse:
        image_id = self._tags.get((self._environments.resolve(request.environment_name), request.tag))
        if image_id is None:
            raise GRPCError(Status.NOT_FOUND, f"No image is published as {request.tag!r}")
        return message(api_pb2.ImageGetByTagResponse, image_id=image_id, metadata=self._images[image_id].metadata)

    async def ImageDelete(self, request: api_pb2.ImageDeleteRequest, caller: Caller) -> Empty:
        self.get(request.image_id)
        self._by_definition = {k: v for k, v in self._by_definition.items() if v != request.image_id}
        del self._images[request.image_id]
        return Empty()

    def _layered(self, definition: api_pb2.Image) -> Image:
        image = Image(new_id("im"))
        for base in definition.base_images:
            below = self.get(base.image_id)
            image.variables |= below.variables
            image.workdir = below.workdir or image.workdir
            image.copied += below.copied
        for command in definition.dockerfile_commands:
            apply_command(image, command, definition.context_mount_id)
        return image


def apply_command(image: Image, command: str, context_mount_id: str) -> None:
    """Give a Dockerfile command its effect on the layer, if it has one here."""
    verb, _, rest = command.strip().partition(" ")
    match verb.upper():
        case "ENV":
            image.variables |= _assignments(rest)
        case "WORKDIR":
            image.workdir = rest.strip()
        case "COPY" if context_mount_id:
            sources_and_target = shlex.split(rest)
            if sources_and_target[:-1] == ["."]:
                image.copied.append((context_mount_id, sources_and_target[-1]))


def _assignments(text: str) -> dict[str, str]:
    """Read ``A=1 B="two words"``, and the old form ``A the rest``."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    return dict(word.split("=", 1) for word in words if "=" in word)
