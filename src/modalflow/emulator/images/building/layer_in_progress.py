"""A layer while commands and files make it: its draft on disk, and the image's files and Python at this point.

Owns the draft. The commands belong to command_builder.py.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modalflow.emulator.images import python_envs
from modalflow.emulator.images.builder import BuildResult
from modalflow.emulator.images.building.interpreters import HERE, Interpreter, first_of_layers
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.image_layers import Draft, ImageLayers

#: Folders of a container's root that no layer has.
_NOT_KEPT = ("__modal", ".modalflow-host", "dev", "proc", "run", "sys")


class LayerInProgress:
    """A layer being made: nothing is on disk until a step needs it."""

    def __init__(
        self, layers: ImageLayers, name: str, below: BuildResult, root: Path, shown: Sequence[Path] = ()
    ) -> None:
        """Begin with nothing. ``shown`` are folders of this machine that commands see and no image has a part of."""
        self._layers, self._name, self._below = layers, name, below
        self._foreign = (layers.hidden, *shown)
        self.below = tuple(layers.files(each) for each in reversed(below.layers))
        self._root = root
        self._draft: Draft | None = None
        self._works = 0

    @property
    def draft(self) -> Draft:
        if self._draft is None:
            self._draft = self._layers.draft(self._name)
            self._draft.files.mkdir(mode=0o755)
        return self._draft

    @property
    def tree(self) -> LayeredTree:
        """The image's files at this point."""
        return LayeredTree((*(() if self._draft is None else (self._draft.files,)), *self.below), self._root)

    def begun_tree(self) -> LayeredTree:
        """Return the image's files, with this layer to place files in."""
        return LayeredTree((self.draft.files, *self.below), self._root)

    @property
    def has_environment(self) -> bool:
        return has_environment(self.tree)

    @property
    def has_host_python(self) -> bool:
        """Whether the environment, if there is one, is of this process's Python."""
        place = str(python_envs.IN_IMAGE / f"lib/python{HERE}/site-packages")
        return not self.has_environment or python_envs.HOST_PATHS in self.tree.names(place)

    @property
    def changes_host_packages(self) -> bool:
        own = () if self._draft is None else (self._draft.files,)
        return changes_host_packages((*own, *self.below))

    def make_environment(self) -> None:
        """Make the image's environment of Python packages, unless it exists."""
        if not self.has_environment:
            place = self.begun_tree().make_folder(str(python_envs.IN_IMAGE.parent)) / python_envs.IN_IMAGE.name
            python_envs.make_in_image(place)

    def make_environment_for(self, interpreter: Interpreter, client: Path) -> None:
        """Make the environment for a Python that does not find this machine's packages."""
        place = self.begun_tree().make_folder(str(python_envs.IN_IMAGE.parent)) / python_envs.IN_IMAGE.name
        python_envs.make_for(place, interpreter.path, interpreter.series, client)

    def connect(self, interpreter: Interpreter, client: Path) -> None:
        """Make a Python of the image's own find Modal's SDK."""
        prefix = posixpath.dirname(posixpath.dirname(interpreter.path))
        folder = f"{prefix}/lib/python{interpreter.series}/site-packages"
        if python_envs.CLIENT_PATHS not in self.tree.names(folder):
            python_envs.connect_to(self.begun_tree().make_folder(folder), client)

    def new_work_folder(self) -> Path:
        self._works += 1
        folder = self.draft.temporary / f"work-{self._works}"
        folder.mkdir()
        return folder

    def found(self, path: str) -> BuildResult:
        """Return the result if the layer exists; ``path`` is the variable PATH of containers."""
        return self._result((*self._below.layers, self._name), path)

    def _result(self, layers: tuple[str, ...], path: str) -> BuildResult:
        tree = LayeredTree([self._layers.files(each) for each in reversed(layers)], self._root)
        result = BuildResult(layers=layers, has_environment=has_environment(tree))
        found = first_of_layers(tree, path)
        if found is None or self._is_over_host(found, tree):
            return result
        return replace(result, program=found.path, series=found.series)

    @staticmethod
    def _is_over_host(found: Interpreter, tree: LayeredTree) -> bool:
        """Return whether it is the environment's Python and finds this machine's packages."""
        if not Path(found.path).is_relative_to(python_envs.IN_IMAGE):
            return False
        return python_envs.CLIENT_PATHS not in tree.names(
            str(python_envs.IN_IMAGE / f"lib/python{found.series}/site-packages")
        )

    def finish(self, path: str) -> BuildResult:
        """Make the draft a layer; ``path`` is the variable PATH of containers."""
        if self._draft is None:
            return self._result(self._below.layers, path)
        for name in _NOT_KEPT:
            shutil.rmtree(self._draft.files / name, ignore_errors=True)
        for foreign in self._foreign:
            _remove_empty(self._draft.files / str(foreign).lstrip("/"), self._draft.files)
        if not any(self._draft.files.iterdir()):
            self._draft.discard()
            return self._result(self._below.layers, path)
        self._draft.finish()
        return self.found(path)

    def discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()


def has_environment(tree: LayeredTree) -> bool:
    """Return whether an image has Python packages of its own."""
    return tree.on_host(str(python_envs.IN_IMAGE / "pyvenv.cfg")) is not None


def changes_host_packages(layers: tuple[Path, ...]) -> bool:
    """Return whether layers have files among those of the host's Python and its packages."""
    places = [*python_envs.host_packages(), str(Path(os.__file__).parent)]
    return any(os.path.lexists(layer / place.lstrip("/")) for layer in layers for place in places)


def _remove_empty(folder: Path, above: Path) -> None:
    """Remove a folder and those around it, up to ``above``, as long as they are empty."""
    while folder != above:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent
