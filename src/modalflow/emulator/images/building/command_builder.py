"""Builds that run an image's commands, each layer a writable overlay over the layers below and the host's root.

Owns the execution of a recipe's steps in such a layer. Nothing is written outside of the draft of the layer, which
becomes the layer in one step, or is removed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from modalflow.emulator.images import pip, python_envs
from modalflow.emulator.images.builder import Build, BuildResult, StepError
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.building.logged_program import Programs, run
from modalflow.emulator.images.building.users import UnknownUser, user_of
from modalflow.emulator.images.dockerfile.run_command import RunCommand
from modalflow.emulator.images.dockerfile.run_line import Fail, RunPip
from modalflow.emulator.images.image_layers import Draft, ImageLayers
from modalflow.emulator.images.recipe import Action, Copy, Recipe
from modalflow.emulator.processes.container_spec import ContainerSpec, Layers, Rootfs
from modalflow.emulator.state.file_store import FileStore
from modalflow.emulator.state.state_dir import StateDir

#: Variables of every command, over the host's for installers. An image's own have precedence.
_VARIABLES = {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "PYTHONUNBUFFERED": "1"}

#: Folders of a container's root that no layer has.
_NOT_KEPT = ("__modal", ".modalflow-host", "dev", "proc", "run", "sys")

#: How a program reports that it cannot be found.
_NOT_FOUND = 127


class CommandBuilder:
    """The executor of recipes with commands."""

    def __init__(self, state: StateDir, layers: ImageLayers, programs: Programs) -> None:
        self._layers, self._programs = layers, programs
        self._content = state.files
        self._hidden = state.root
        self._cache = state.root / "pip-cache"

    async def make(self, name: str, recipe: Recipe, below: BuildResult, build: Build) -> BuildResult:
        """Make the layer, under this name; StepError or InstallError if a step fails."""
        if below.files or below.python:
            raise StepError("the image below was made without running its commands; build it again, with force_build")
        is_made = self._layers.has(name)
        layer = _Layer(self._layers, name, below)
        try:
            for number, step in enumerate(recipe.steps):
                build.log(f"=> Step {number}: {step.text}\n" + (f"   {step.note}\n" if step.note else ""))
                if step.refused:
                    raise StepError(f"{step.text}: it cannot be executed here, because {step.refused}")
                for action in () if is_made else step.actions:
                    await self._do(action, layer, build)
            if is_made:
                build.log("   found as it was made before\n")
                return layer.found()
            return await asyncio.to_thread(layer.finish)
        except BaseException:
            layer.discard()
            raise

    def adopt(self, name: str, below: BuildResult, written: Path) -> BuildResult:
        """Make a layer of a function's written files, over those below."""
        layer = _Layer(self._layers, name, below)
        try:
            shutil.copytree(written, layer.draft.files, symlinks=True, dirs_exist_ok=True)
            return layer.finish()
        except BaseException:
            layer.discard()
            raise

    async def _do(self, action: Action, layer: _Layer, build: Build) -> None:
        if isinstance(action, Copy):
            await asyncio.to_thread(place, layer.begun_tree(), action, self._content)
        elif isinstance(action, RunPip):
            await self._install(action, layer, build)
        elif isinstance(action, RunCommand):
            await self._run(action, layer, build)
        else:
            assert isinstance(action, Fail)
            raise StepError(f"RUN {action.command} ends with exit code {action.exit_code}")

    async def _install(self, action: RunPip, layer: _Layer, build: Build) -> None:
        wanted = pip.wanted(action.install, lambda path: layer.tree.on_host(path) or Path(path))
        if wanted is not None and not layer.has_environment and not layer.changes_host_packages:
            there = await asyncio.to_thread(wanted.satisfied)
            if there is not None:
                # pip would print the same after some seconds.
                for name, version in there.items():
                    build.log_line(f"Requirement already satisfied: {name} in this machine's Python ({version})\n")
                return
        await asyncio.to_thread(layer.make_environment)
        temporary = layer.draft.temporary
        await pip.install(
            action.install,
            python_envs.IN_IMAGE,
            rootfs=self._rootfs(layer, action.workdir, self._cache, temporary, *pip.users_own()),
            variables=action.variables,
            temporary=temporary,
            cache=self._cache,
            programs=self._programs,
            log=build.log_line,
        )

    async def _run(self, action: RunCommand, layer: _Layer, build: Build) -> None:
        try:
            user = user_of(action.user, layer.tree)
        except UnknownUser as error:
            raise StepError(f"{action.text}: {error}") from error
        await asyncio.to_thread(layer.make_environment)
        spec = ContainerSpec(
            self._rootfs(layer, action.workdir, self._cache, *pip.users_own()),
            self._variables(action.variables),
            program=action.program,
            user=user,
        )
        ended = await run(self._programs, spec, build.log_line)
        if ended.code:
            raise StepError(_explained(action, ended.code, "".join(ended.last)))

    def _variables(self, given: Mapping[str, str]) -> dict[str, str]:
        host = pip.host_variables()
        path = os.pathsep.join([str(python_envs.IN_IMAGE / "bin"), host.get("PATH", os.defpath)])
        return {"PIP_CACHE_DIR": str(self._cache), **host, **_VARIABLES, "PATH": path, **given}

    def _rootfs(self, layer: _Layer, workdir: str, *shown: Path) -> Rootfs:
        self._cache.mkdir(exist_ok=True)
        folder, nothing = layer.draft.temporary / "container", layer.draft.temporary / "nothing"
        for made in (folder, nothing):
            made.mkdir(exist_ok=True)
        return Rootfs(
            folder=folder,
            layer=nothing,
            hidden=self._hidden,
            shown=shown,
            cwd=workdir or "/",
            layers=Layers(layer.below, layer.draft.files, layer.new_work_folder()),
        )


class _Layer:
    """A layer being made: nothing is on disk until a step needs it."""

    def __init__(self, layers: ImageLayers, name: str, below: BuildResult) -> None:
        self._layers, self._name, self._below = layers, name, below
        self.below = tuple(layers.files(each) for each in reversed(below.layers))
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
        return LayeredTree((*(() if self._draft is None else (self._draft.files,)), *self.below), Path("/"))

    def begun_tree(self) -> LayeredTree:
        """Return the image's files, with this layer to place files in."""
        return LayeredTree((self.draft.files, *self.below), Path("/"))

    @property
    def has_environment(self) -> bool:
        return has_environment(self.tree)

    @property
    def changes_host_packages(self) -> bool:
        own = () if self._draft is None else (self._draft.files,)
        return changes_host_packages((*own, *self.below))

    def make_environment(self) -> None:
        """Make the image's environment of Python packages, unless it exists."""
        if not self.has_environment:
            place = self.begun_tree().make_folder(str(python_envs.IN_IMAGE.parent)) / python_envs.IN_IMAGE.name
            python_envs.make_in_image(place)

    def new_work_folder(self) -> Path:
        self._works += 1
        folder = self.draft.temporary / f"work-{self._works}"
        folder.mkdir()
        return folder

    def found(self) -> BuildResult:
        layers = (*self._below.layers, self._name)
        tree = LayeredTree([self._layers.files(each) for each in reversed(layers)], Path("/"))
        return BuildResult(layers=layers, has_environment=has_environment(tree))

    def finish(self) -> BuildResult:
        if self._draft is None:
            return self._below
        for name in _NOT_KEPT:
            shutil.rmtree(self._draft.files / name, ignore_errors=True)
        _remove_empty(self._draft.files / str(self._layers.hidden).lstrip("/"), self._draft.files)
        if not any(self._draft.files.iterdir()):
            self._draft.discard()
            return self._below
        self._draft.finish()
        return self.found()

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


def place(tree: LayeredTree, copy: Copy, content: FileStore) -> None:
    """Put files into the uppermost layer of a tree, and replace existing ones."""
    for path, source in copy.files.items():
        try:
            target = tree.place(path)
        except OSError as error:
            raise StepError(f"COPY cannot write {path}: {error.strerror}") from error
        if source.sha256:
            shutil.copyfile(content.path(source.sha256), target)
        else:
            target.write_bytes(source.data)
        target.chmod(stat.S_IMODE(source.mode) or 0o644)


def _explained(action: RunCommand, code: int, output: str) -> str:
    last = f" Its last lines:\n{output.strip()}" if output.strip() else " It printed nothing."
    program = action.program[0]
    why = f" ({program} is not in the image)" if code == _NOT_FOUND and output.startswith(f"{program}: ") else ""
    return f"{action.text}\nended with exit code {code}{why}.{last}"


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
