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
from dataclasses import replace
from pathlib import Path

from modalflow.emulator.images import pip, python_envs
from modalflow.emulator.images.builder import Build, BuildResult, StepError
from modalflow.emulator.images.building import interpreters
from modalflow.emulator.images.building.client_packages import ClientPackages
from modalflow.emulator.images.building.layer_in_progress import LayerInProgress
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.building.logged_program import Programs, run
from modalflow.emulator.images.building.root_below import RootBelow
from modalflow.emulator.images.building.users import UnknownUser, user_of
from modalflow.emulator.images.building.uv_program import Uv, provide
from modalflow.emulator.images.dockerfile.actions import Begin, ProvideUv
from modalflow.emulator.images.dockerfile.run_command import RunCommand
from modalflow.emulator.images.dockerfile.run_line import Fail, RunPip
from modalflow.emulator.images.image_layers import ImageLayers
from modalflow.emulator.images.recipe import Action, Copy, Recipe
from modalflow.emulator.processes.container_spec import ContainerSpec, Layers, Rootfs
from modalflow.emulator.state.file_store import FileStore
from modalflow.emulator.state.state_dir import StateDir

#: Variables of every command, over the host's for installers. An image's own have precedence.
_VARIABLES = {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive", "PYTHONUNBUFFERED": "1"}

#: The shell of micromamba's image, by which the SDK runs it.
_MICROMAMBAS_SHELL = "/usr/local/bin/_dockerfile_shell.sh"

_NO_MICROMAMBA = (
    " micromamba is not in the image: put it on this machine's PATH, or build over an archive of its image with "
    "--base oci:PATH."
)

#: How a program reports that it cannot be found.
_NOT_FOUND = 127


class CommandBuilder:
    """The executor of recipes with commands."""

    def __init__(
        self,
        state: StateDir,
        layers: ImageLayers,
        programs: Programs,
        root: RootBelow,
        clients: ClientPackages,
    ) -> None:
        self._layers, self._programs = layers, programs
        self._root, self._clients = root, clients
        self._uv = Uv(state, programs)
        self._content = state.files
        self._hidden = state.root
        self._cache = state.root / "pip-cache"

    async def make(self, name: str, recipe: Recipe, below: BuildResult, build: Build) -> BuildResult:
        """Make the layer, under this name; StepError or InstallError if a step fails."""
        if below.files or below.python:
            raise StepError("the image below was made without running its commands; build it again, with force_build")
        is_made = self._layers.has(name)
        layer = LayerInProgress(self._layers, name, below, self._root.path, pip.users_own())
        try:
            for number, step in enumerate(recipe.steps):
                build.log(f"=> Step {number}: {step.text}\n" + (f"   {step.note}\n" if step.note else ""))
                if step.refused:
                    raise StepError(f"{step.text}: it cannot be executed here, because {step.refused}")
                for action in () if is_made else step.actions:
                    await self._do(action, layer, build)
            if is_made:
                build.log("   found as it was made before\n")
                return layer.found(self._path(recipe))
            await self._end(recipe, layer, build)
            return await asyncio.to_thread(layer.finish, self._path(recipe))
        except BaseException:
            layer.discard()
            raise

    def adopt(self, name: str, below: BuildResult, written: Path) -> BuildResult:
        """Make a layer of a function's written files, over those below."""
        layer = LayerInProgress(self._layers, name, below, self._root.path)
        try:
            shutil.copytree(written, layer.draft.files, symlinks=True, dirs_exist_ok=True)
            return replace(layer.finish(""), program=below.program, series=below.series)
        except BaseException:
            layer.discard()
            raise

    async def _do(self, action: Action, layer: LayerInProgress, build: Build) -> None:
        if isinstance(action, Copy):
            await asyncio.to_thread(place, layer.begun_tree(), action, self._content)
        elif isinstance(action, Begin):
            await self._begin(action.series, layer, build)
        elif isinstance(action, ProvideUv):
            program = await self._uv.program(build.log)
            await asyncio.to_thread(provide, layer.begun_tree(), action.path, program)
        elif isinstance(action, RunPip):
            await self._install(action, layer, build)
        elif isinstance(action, RunCommand):
            await self._run(action, layer, build)
        else:
            assert isinstance(action, Fail)
            raise StepError(f"RUN {action.command} ends with exit code {action.exit_code}")

    async def _install(self, action: RunPip, layer: LayerInProgress, build: Build) -> None:
        wanted = pip.wanted(action.install, lambda path: layer.tree.on_host(path) or Path(path))
        is_plain_host = self._root.is_host and not layer.has_environment and not layer.changes_host_packages
        if wanted is not None and is_plain_host:
            there = await asyncio.to_thread(wanted.satisfied)
            if there is not None:
                # pip would print the same after some seconds.
                for name, version in there.items():
                    build.log_line(f"Requirement already satisfied: {name} in this machine's Python ({version})\n")
                return
        await self._make_environment(layer, build)
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
            pip_arguments=None if layer.has_host_python else ["-m", "pip"],
        )

    async def _run(self, action: RunCommand, layer: LayerInProgress, build: Build) -> None:
        try:
            user = user_of(action.user, layer.tree)
        except UnknownUser as error:
            raise StepError(f"{action.text}: {error}") from error
        await self._make_environment(layer, build)
        program = action.program
        if program[0] == _MICROMAMBAS_SHELL and layer.tree.on_host(_MICROMAMBAS_SHELL) is None:
            program = ("/bin/sh", "-c", *program[1:])
        spec = ContainerSpec(
            self._rootfs(layer, action.workdir, self._cache, *pip.users_own()),
            self._variables(action.variables, layer),
            program=program,
            user=user,
        )
        ended = await run(self._programs, spec, build.log_line)
        if ended.code:
            raise StepError(_explained(action, ended.code, "".join(ended.last)))

    async def _begin(self, series: str, layer: LayerInProgress, build: Build) -> None:
        """Make the environment of a Python of this version, or of another one, which the log names."""
        if layer.has_environment:
            return
        if self._root.is_host:
            found = await asyncio.to_thread(interpreters.on_host, series)
        else:
            found = interpreters.in_tree(layer.tree, series) or interpreters.in_tree(layer.tree)
        if found is None:
            what = f"Python {series or 3}"
            if self._root.is_host:
                build.log(
                    f"   {what} is not on PATH, nor one of uv or pyenv: containers have Python {interpreters.HERE}\n"
                )
            else:
                build.log(f"   the root below has no {what}: containers can start once a command has installed it\n")
            return
        if series and found.series != series:
            build.log(f"   the root below has no Python {series}: containers have its Python {found.series}\n")
        build.log(f"   Python {found.series}: {found.path}\n")
        try:
            client = await self._clients.make(found.series, build.log)
        except pip.InstallError as error:
            if not self._root.is_host:
                raise
            build.log(f"   {error}\n   Containers have Python {interpreters.HERE} instead\n")
            return
        await asyncio.to_thread(layer.make_environment_for, found, client)

    async def _make_environment(self, layer: LayerInProgress, build: Build) -> None:
        if self._root.is_host:
            await asyncio.to_thread(layer.make_environment)
        elif not layer.has_environment and interpreters.in_tree(layer.tree) is not None:
            await self._begin("", layer, build)

    async def _end(self, recipe: Recipe, layer: LayerInProgress, build: Build) -> None:
        """Let the Python that containers run find Modal's SDK, if commands have brought their own."""
        if not self._root.is_host:
            await self._make_environment(layer, build)
        found = interpreters.first_of_layers(layer.tree, self._path(recipe))
        if found is not None and not Path(found.path).is_relative_to(python_envs.IN_IMAGE):
            build.log(f"   containers run {found.path}, Python {found.series}\n")
            client = await self._clients.make(found.series, build.log)
            await asyncio.to_thread(layer.connect, found, client)

    def _path(self, recipe: Recipe) -> str:
        own = os.pathsep.join([str(python_envs.IN_IMAGE / "bin"), self._root.search_path])
        return recipe.settings.variables.get("PATH", own)

    def _variables(self, given: Mapping[str, str], layer: LayerInProgress) -> dict[str, str]:
        host, own = pip.host_variables(), str(python_envs.IN_IMAGE / "bin")
        path = os.pathsep.join([own, self._root.search_path])
        variables = {"PIP_CACHE_DIR": str(self._cache), **host, **_VARIABLES, "PATH": path}
        if layer.has_environment and given.get("PATH", path).partition(os.pathsep)[0] == own:
            # Without it, some installers take the Python below the environment for the image's.
            variables["VIRTUAL_ENV"] = str(python_envs.IN_IMAGE)
        return {**variables, **given}

    def _rootfs(self, layer: LayerInProgress, workdir: str, *shown: Path) -> Rootfs:
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
            lent=self._clients.made(),
            layers=Layers(layer.below, layer.draft.files, layer.new_work_folder(), self._root.path),
        )


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
    hint = _NO_MICROMAMBA if code == _NOT_FOUND and action.text.startswith("RUN micromamba ") else ""
    return f"{action.text}\nended with exit code {code}{why}.{hint}{last}"
