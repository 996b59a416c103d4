"""The images of one control plane: found by id or identity, their layers on disk, their records.

Owns the set of images. Builds belong to Images. A container runs in the Python of the host, with the variables, files
and packages of the image over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.images import python_envs
from modalflow.emulator.images.builder import BuildResult
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.building.root_below import RootBelow
from modalflow.emulator.images.image import Image, decode, encode
from modalflow.emulator.images.image_layers import ImageLayers
from modalflow.emulator.logs.log_records import LogEntry
from modalflow.emulator.state.state_dir import StateDir

SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS


class ImageStore:
    """All images, by id, and the cache of identities."""

    def __init__(self, state: StateDir, root: RootBelow | None = None) -> None:
        self.layers = ImageLayers(state)
        self.root = root or RootBelow()
        self._images: dict[str, Image] = {}
        self._cached: dict[str, str] = {}
        """The image of each identity."""
        self._table = state.journal.table("images", encode)
        self._cache_table = state.journal.table("image_cache", str)
        for _, image_id, record in self._table.load():
            self._images[image_id] = decode(image_id, record)
        for _, identity, image_id in self._cache_table.load():
            self._cached[identity] = image_id
        self.layers.sweep({name for i in self._images.values() for name in i.made.names})

    def find(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def get(self, image_id: str) -> Image:
        """Return the image of that id; NOT_FOUND for an unknown one."""
        image = self._images.get(image_id)
        if image is None:
            raise GRPCError(Status.NOT_FOUND, f"Image {image_id!r} not found")
        return image

    def cached(self, identity: str) -> Image | None:
        """Return the image of this identity, if it is usable or being built."""
        image = self._images.get(self._cached.get(identity, ""))
        if image is None or (image.build.result is not None and image.build.result.status != SUCCESS):
            return None
        if any(not self.layers.has(name) for name in image.made.names):
            return None
        return image

    def files(self, image: Image) -> Path | None:
        """Return the tree of files over the host's root, None if the image has none."""
        return self.layers.files(image.made.files) if image.made.files else None

    def layer_folders(self, image: Image) -> tuple[Path, ...]:
        """Return the folders of the image's file layers, uppermost first."""
        return tuple(self.layers.files(name) for name in reversed(image.made.layers))

    def tree(self, made: BuildResult) -> LayeredTree:
        """Return the files of an image whose commands were run, over the root below."""
        return LayeredTree([self.layers.files(name) for name in reversed(made.layers)], self.root.path)

    def python(self, image: Image) -> Path | None:
        """Return the image's environment as containers see it, None if it has no packages of its own."""
        if image.made.program:
            return Path(image.made.program).parent.parent
        if image.made.has_environment:
            return python_envs.IN_IMAGE
        return self.layers.python(image.made.python) if image.made.python else None

    def packages(self, made: BuildResult) -> dict[str, str]:
        """Return the packages of an image over the host's: name → version."""
        if made.has_environment:
            tree = self.tree(made)
            series = f"lib/python{made.series}/site-packages"
            own = [python_envs.IN_IMAGE / series] if made.program else python_envs.packages(python_envs.IN_IMAGE)
            places = [tree.names(str(place)) for place in own]
        elif made.python:
            folders = python_envs.packages(self.layers.python(made.python))
            places = [{path.name for path in folder.iterdir()} for folder in folders if folder.is_dir()]
        else:
            return {}
        return python_envs.installed(name for names in places for name in names)

    def chain(self, image: Image) -> Iterator[Image]:
        """Yield the image and the layers below it, from the highest down."""
        current: Image | None = image
        while current is not None:
            yield current
            current = self._images.get(current.settings.base)

    def build_log(self, app_id: str) -> list[LogEntry] | None:
        """Return the log of the build that an app id stands for, None for the id of an app."""
        image = self._images.get(app_id.replace("ap-", "im-", 1))
        if image is None or app_id != builder_app_id(image.image_id):
            return None
        return image.build.entries()

    def add(self, image: Image) -> None:
        self._images[image.image_id] = image
        self._table.put("", image.image_id, image)

    def cache(self, identity: str, image: Image) -> None:
        """Use this image for the identity."""
        self._cached[identity] = image.image_id
        self._cache_table.put("", identity, image.image_id)

    def save(self, image: Image) -> None:
        """Record the present state of the image, unless it was deleted."""
        if image.image_id in self._images:
            self._table.put("", image.image_id, image)

    def delete(self, image: Image) -> None:
        """Delete the image.

        Its layers are removed at the next start, unless another image has them, because containers may use them.
        """
        del self._images[image.image_id]
        self._table.discard("", image.image_id)
        for identity in [i for i, image_id in self._cached.items() if image_id == image.image_id]:
            del self._cached[identity]
            self._cache_table.discard("", identity)


def builder_app_id(image_id: str) -> str:
    """Return the app id of an image's build, derived from the id of the image because there is no such app."""
    return image_id.replace("im-", "ap-", 1)
