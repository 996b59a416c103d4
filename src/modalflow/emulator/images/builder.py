"""One image build: execute the steps of a recipe and log their output.

Owns the build's log and its result. The steps come from recipe.py, their output goes into image_layers.py, and
images.py owns the list of builds.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modal_proto import api_pb2

from modalflow.emulator.images import pip
from modalflow.emulator.images.building.logged_program import Programs
from modalflow.emulator.images.dockerfile.copy_line import Source
from modalflow.emulator.images.dockerfile.run_line import Fail, RunPip
from modalflow.emulator.images.image_layers import Draft, ImageLayers
from modalflow.emulator.images.recipe import Action, Copy, Recipe
from modalflow.emulator.logs.log_lines import Unfinished
from modalflow.emulator.logs.log_records import LogEntry
from modalflow.emulator.rpc.wire import message, sendable
from modalflow.emulator.services.mounts import make_parents
from modalflow.emulator.state.broadcast import Broadcast
from modalflow.emulator.state.file_store import FileStore
from modalflow.emulator.state.state_dir import StateDir

#: A shorter secret is not removed from a build's log: it is a setting, and would be found in any word.
SHORTEST_SECRET = 4


class StepError(RuntimeError):
    """The error of a step that failed, or that cannot be executed. The text names the step and the reason."""


class BuildFunctionError(RuntimeError):
    """The failure of the function of Image.run_function. The text is its exception."""


@dataclass(eq=False)
class Build:
    """The state of a build. ``result`` is None until it ends."""

    lines: list[api_pb2.TaskLogs] = field(default_factory=list)
    result: api_pb2.GenericResult | None = None
    started_at: float = field(default_factory=time.time)
    finished_at: float = 0.0
    changed: Broadcast = field(default_factory=Broadcast)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    _held: dict[int, str] = field(default_factory=dict, repr=False)
    """The end of a piece, if it may be the beginning of a secret, by source."""

    def piece(self, text: str, source: int) -> None:
        """Log a line, or the beginning of one, printed by a function."""
        text = self._held.pop(source, "") + text
        held = 0 if text.endswith("\n") else _begun_secret(text, self.secrets)
        if held:
            self._held[source] = text[-held:]
            text = text[:-held]
        if text:
            self.log(text, source)

    def log(self, text: str, source: int = api_pb2.FILE_DESCRIPTOR_INFO) -> None:
        now = time.time_ns()
        self.lines.append(
            message(
                api_pb2.TaskLogs,
                data=self.redacted(text),
                timestamp=now / 1e9,
                timestamp_ns=now,
                file_descriptor=source,
            )
        )
        self.changed.notify()

    def log_line(self, line: str) -> None:
        self.log(line, api_pb2.FILE_DESCRIPTOR_STDOUT)

    def redacted(self, text: str) -> str:
        """Return the text without the values of the layer's Secrets, in a form suitable for a message."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return sendable(text)

    def end(self, status: int, exception: str = "") -> None:
        for source, text in self._held.items():
            self.log(text, source)
        self._held.clear()
        self.finished_at = time.time()
        self.result = message(api_pb2.GenericResult, status=status, exception=self.redacted(exception))
        self.changed.notify()

    def entries(self, unfinished: Unfinished | None = None, since: int = 0, until: int | None = None) -> list[LogEntry]:
        """Return some lines as entries of a log, marked by what ``unfinished`` knows of those before."""
        unfinished = unfinished or Unfinished()
        return [
            unfinished.marked(LogEntry(number, line.timestamp_ns, line.data, line.file_descriptor, "", "", "", "", ""))
            for number, line in enumerate(self.lines[since:until], since + 1)
        ]

    def has_news(self, sent: int) -> bool:
        return len(self.lines) > sent or self.result is not None


def secrets_to_redact(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values to remove from a log, the longest first: one may be part of another."""
    return tuple(sorted({v for v in values if len(v) >= SHORTEST_SECRET}, key=len, reverse=True))


def _begun_secret(text: str, secrets: tuple[str, ...]) -> int:
    """Return the length of a possible beginning of a secret at the end of the text, 0 if there is none."""
    return max((n for s in secrets for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])), default=0)


@dataclass(frozen=True)
class BuildResult:
    """The layers with an image's files and packages; empty: the host's alone.

    A build that runs commands fills ``layers``, one that does not the others.
    """

    files: str = ""
    python: str = ""
    layers: tuple[str, ...] = ()
    """The layers of files that lie over each other, lowest first."""
    has_environment: bool = False
    """Whether the layers have an environment of their own, at python_envs.IN_IMAGE."""
    program: str = ""
    """The path of the Python of containers; empty: this machine's, or the environment's over it."""
    series: str = ""
    """The minor version of ``program``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The layers on disk."""
        return tuple(name for name in (self.files, self.python, *self.layers) if name)


class Builder:
    """The executor of recipes."""

    def __init__(self, state: StateDir, layers: ImageLayers, programs: Programs, refusal: str) -> None:
        """Fail the build of a command that is not executed, with ``refusal`` as the advice; empty: log it."""
        self._refusal = refusal
        self._layers = layers
        self._content = state.files
        self._cache = state.root / "pip-cache"
        self._hidden = state.root
        self._programs = programs

    async def make(self, name: str, recipe: Recipe, below: BuildResult, build: Build) -> BuildResult:
        """Make the layer, under this name; InstallError if pip fails."""
        if self._layers.has(name):
            self._log_steps(recipe, build)
            build.log("   found as it was made before\n")
            return self._found(name, below)
        work = _Work(self._layers, name, below)
        try:
            for number, step in enumerate(recipe.steps):
                build.log(f"=> Step {number}: {step.text}\n")
                if step.note:
                    build.log(f"   {step.note}\n")
                if step.refused and self._refusal:
                    raise StepError(f"{step.text}: not executed here ({step.refused}). {self._refusal}")
                for action in step.actions:
                    await self._do(action, work, build)
            return await asyncio.to_thread(work.finish)
        except BaseException:
            work.discard()
            raise

    def adopt(self, name: str, below: BuildResult, written: Path) -> BuildResult:
        """Make a layer of a function's written files, over those below."""
        if not any(written.iterdir()):
            return below
        work = _Work(self._layers, name, below)
        try:
            shutil.copytree(written, work.own_files(), symlinks=True, dirs_exist_ok=True)
            return work.finish()
        except BaseException:
            work.discard()
            raise

    def _found(self, name: str, below: BuildResult) -> BuildResult:
        return BuildResult(
            files=name if self._layers.files(name).is_dir() else below.files,
            python=name if self._layers.python(name).is_dir() else below.python,
        )

    @staticmethod
    def _log_steps(recipe: Recipe, build: Build) -> None:
        for number, step in enumerate(recipe.steps):
            build.log(f"=> Step {number}: {step.text}\n" + (f"   {step.note}\n" if step.note else ""))

    async def _do(self, action: Action, work: _Work, build: Build) -> None:
        if isinstance(action, Fail):
            raise StepError(
                f"RUN {action.command} ends with exit code {action.exit_code}, so the image cannot be built"
            )
        if isinstance(action, RunPip):
            await self._install(action, work, build)
            return
        assert isinstance(action, Copy)
        tree = await asyncio.to_thread(work.own_files)
        await asyncio.to_thread(place, tree, action.files, self._content)

    async def _install(self, action: RunPip, work: _Work, build: Build) -> None:
        wanted = pip.wanted(action.install, lambda path: pip.on_host(path, work.tree))
        if wanted is not None and not work.has_python:
            there = await asyncio.to_thread(wanted.satisfied)
            if there is not None:
                # pip would print the same after some seconds.
                for name, version in there.items():
                    build.log_line(f"Requirement already satisfied: {name} in this machine's Python ({version})\n")
                return
        environment, tree = await asyncio.to_thread(work.own_python), work.tree
        if tree is not None and pip.is_editable(action.install):
            # Building them leaves files beside the source.
            tree = await asyncio.to_thread(work.own_files)
        await pip.install(
            action.install,
            environment,
            tree=tree,
            rootfs=pip.outside_root(
                action.workdir,
                tree=tree,
                draft=work.folder,
                temporary=work.temporary,
                cache=self._cache,
                hidden=self._hidden,
            ),
            variables=action.variables,
            temporary=work.temporary,
            cache=self._cache,
            programs=self._programs,
            # The user knows the image's own files by their paths in the image.
            log=lambda line: build.log_line(line if tree is None else line.replace(str(tree), "")),
        )


class _Work:
    """A layer being made: nothing is on disk until a step needs it."""

    def __init__(self, layers: ImageLayers, name: str, below: BuildResult) -> None:
        self._layers, self._name, self._below = layers, name, below
        self._draft: Draft | None = None

    @property
    def tree(self) -> Path | None:
        """Return the image's files at this point, None if it has none of its own."""
        if self._draft is not None and self._draft.files.exists():
            return self._draft.files
        return self._layers.files(self._below.files) if self._below.files else None

    @property
    def has_python(self) -> bool:
        return bool(self._below.python) or (self._draft is not None and self._draft.python.exists())

    @property
    def folder(self) -> Path:
        return self._begun().folder

    @property
    def temporary(self) -> Path:
        return self._begun().temporary

    def own_files(self) -> Path:
        return self._begun().own_files(self._layers.files(self._below.files) if self._below.files else None)

    def own_python(self) -> Path:
        return self._begun().own_python(self._layers.python(self._below.python) if self._below.python else None)

    def finish(self) -> BuildResult:
        if self._draft is None:
            return self._below
        made = BuildResult(
            files=self._name if self._draft.files.exists() else self._below.files,
            python=self._name if self._draft.python.exists() else self._below.python,
        )
        self._draft.finish()
        return made

    def discard(self) -> None:
        if self._draft is not None:
            self._draft.discard()

    def _begun(self) -> Draft:
        if self._draft is None:
            self._draft = self._layers.draft(self._name)
        return self._draft


def place(tree: Path, files: Mapping[str, Source], content: FileStore) -> None:
    """Put the files into the tree, and replace existing ones."""
    for path, source in files.items():
        target = tree / path.lstrip("/")
        for parent in target.parents:
            if parent != tree and parent.is_relative_to(tree) and parent.is_symlink():
                # On this machine it leads out of the tree.
                parent.unlink()
        make_parents(tree, target.parent)
        target.unlink(missing_ok=True)
        if source.sha256:
            shutil.copyfile(content.path(source.sha256), target)
        else:
            target.write_bytes(source.data)
        target.chmod(source.mode or 0o644)
