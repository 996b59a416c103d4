"""Image layers on disk: one folder each, named by its definition and the layers below.

Owns the folders: their creation in one step, and their removal. A layer's folder contains ``files`` (the tree over the
host's root, with all layers below) and ``python`` (an environment of python_envs.py), each only if the layer changed
it. The same chain of layers is the same folder, so nothing is built twice, even after a restart.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from modalflow.emulator.images import python_envs
from modalflow.emulator.state.state_dir import StateDir

log = logging.getLogger(__name__)

#: Of the same length, so that one can replace the other within a file's paths.
_DRAFT, _LAYER = "draft-", "layer-"


class ImageLayers:
    """The layers of one control plane."""

    def __init__(self, state: StateDir) -> None:
        self._root = state.folder("images")
        #: The folder that no image has a part of.
        self.hidden = state.root

    def has(self, name: str) -> bool:
        return (self._root / f"{_LAYER}{name}").is_dir()

    def files(self, name: str) -> Path:
        """Return the layer's tree of files. Read it, never write to it."""
        return self._root / f"{_LAYER}{name}" / "files"

    def python(self, name: str) -> Path:
        """Return the layer's environment. Read it, never write to it."""
        return self._root / f"{_LAYER}{name}" / "python"

    def draft(self, name: str) -> Draft:
        """Begin a layer and remove the rest of an earlier attempt. One at a time for each name."""
        folder = self._root / f"{_DRAFT}{name}"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        return Draft(folder, self._root / f"{_LAYER}{name}")

    def sweep(self, used: Collection[str]) -> None:
        """Remove unfinished and unused layers. Only while nothing is built or runs."""
        for folder in list(self._root.iterdir()):
            if folder.name.removeprefix(_LAYER) not in used:
                log.info("removing %s: no image uses it", folder.name)
                shutil.rmtree(folder, ignore_errors=True)


class Draft:
    """An unfinished layer. ``finish`` makes it a layer, ``discard`` removes it."""

    def __init__(self, folder: Path, final: Path) -> None:
        self.folder, self._final = folder, final
        self.files = folder / "files"
        self.python = folder / "python"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()

    def own_files(self, below: Path | None) -> Path:
        """Return the layer's own tree of files, created from the one below on first use."""
        if not self.files.exists():
            if below is None:
                self.files.mkdir(mode=0o755)
            else:
                shutil.copytree(below, self.files, symlinks=True)
        return self.files

    def own_python(self, below: Path | None) -> Path:
        """Return the layer's own environment, created from the one below on first use."""
        if not self.python.exists():
            if below is None:
                python_envs.make(self.python)
            else:
                python_envs.clone(below, self.python)
        return self.python

    def finish(self) -> None:
        """Make the draft a layer, in one step."""
        shutil.rmtree(self.temporary)
        if self.python.exists():
            python_envs.relocate(self.python, str(self.folder), str(self._final))
        # It exists already if an image of the same definition was deleted since the last sweep.
        if self._final.exists():
            shutil.rmtree(self.folder)
        else:
            self.folder.rename(self._final)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
