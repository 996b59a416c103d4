"""What a layer's definition asks for, step by step, and which of it happens here.

Owns the meaning of Dockerfile commands: ENV, WORKDIR and COPY have their effect, RUN installs where it is a form of
the SDK's own (installs.py), and whatever else there is becomes a step that says it is not executed here. Nothing is
done yet: building.py does it.
"""

from __future__ import annotations

import fnmatch
import platform
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modal_proto import api_pb2

from modalflow.emulator.images.dockerfile import Command, NeedsShell, commands, words
from modalflow.emulator.images.installs import Install, NotAnInstall, install_of

#: The first line of debian_slim, which Modal keeps built in its global namespace.
_DEBIAN_SLIM = re.compile(r"python:(?P<series>\d+\.\d+)\S*-slim-\w+$")

#: Modal's own requirements, installed into images of old image builders: containers here have the host's client.
_CLIENT_REQUIREMENTS = "/modal_requirements.txt"


class RecipeError(ValueError):
    """The definition cannot be built. The text says what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """A file of the build context: by the hash of its content where a client uploaded it, else as it is."""

    sha256: str = ""
    data: bytes = b""
    mode: int = 0o644


@dataclass(frozen=True)
class Copy:
    """Files to place: path in the image → what goes there."""

    files: Mapping[str, Source]


@dataclass(frozen=True)
class RunPip:
    """Something to install, with the image's variables and working directory at that point."""

    install: Install
    variables: Mapping[str, str]
    workdir: str


@dataclass(frozen=True)
class Step:
    """A command, what is to be done for it, and what a user should know about it."""

    text: str
    action: Copy | RunPip | None = None
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """What a layer adds up to with those below it, apart from files."""

    variables: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    base: str = ""
    """The id of the image whose files and packages it starts with; empty: the host's alone."""


@dataclass(frozen=True)
class Recipe:
    """A layer as it is to be made."""

    settings: Settings
    steps: tuple[Step, ...]

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do, or to tell the user."""
        return any(step.action is not None or step.note for step in self.steps)


def read(
    definition: api_pb2.Image,
    *,
    is_global: bool,
    bases: Mapping[str, Settings],
    context: Mapping[str, Source],
    secrets: Mapping[str, str],
) -> Recipe:
    """Read a definition. ``bases`` are the images that FROM names, ``context`` the files that COPY finds."""
    reader = _Reader(definition, is_global, bases, context, secrets)
    for command in commands(definition.dockerfile_commands):
        reader.read(command)
    return Recipe(reader.settings, tuple(reader.steps))


class _Reader:
    def __init__(
        self,
        definition: api_pb2.Image,
        is_global: bool,
        bases: Mapping[str, Settings],
        context: Mapping[str, Source],
        secrets: Mapping[str, str],
    ) -> None:
        self.steps: list[Step] = []
        self._stages = dict(bases)
        # A layer without FROM is one with run_function: it has nothing but the image below it.
        self.settings = next(iter(bases.values()), Settings())
        self._has_base = bool(bases)
        self._is_global = is_global
        self._is_slim = False
        self._context = context
        self._secrets = secrets
        self._arguments: dict[str, str] = dict(definition.build_args)

    def read(self, command: Command) -> None:
        handler = getattr(self, f"_{command.verb.lower()}", None)
        step = self._unknown(command) if handler is None else handler(command)
        # What Modal's own base image is made of has happened long ago, on Modal as well.
        self.steps.append(replace(step, note="") if self._is_slim and command.verb != "FROM" else step)

    @property
    def _known(self) -> dict[str, str]:
        return {**self._arguments, **self.settings.variables}

    def _from(self, command: Command) -> Step:
        image, *rest = shlex.split(command.rest) or [""]
        found = self._stages.get(image)
        # Of an earlier stage nothing is in the image but what COPY --from takes of it.
        self.steps = [replace(step, action=None) for step in self.steps]
        self.settings = found or Settings()
        self._has_base = found is not None
        if len(rest) == 2 and rest[0].upper() == "AS":
            self._stages[rest[1]] = self.settings
        slim = _DEBIAN_SLIM.match(image) if self._is_global else None
        self._is_slim = slim is not None
        if found is not None:
            return Step(str(command))
        here = platform.python_version()
        if slim is None:
            return Step(str(command), note=f"not pulled: containers have this machine's files and its Python {here}")
        if here.startswith(f"{slim['series']}."):
            return Step(str(command))
        note = f"Python {slim['series']} was asked for; containers here run this machine's Python {here}"
        return Step(str(command), note=note)

    def _arg(self, command: Command) -> Step:
        name, has_default, default = command.rest.partition("=")
        if has_default:
            self._arguments.setdefault(name.strip(), " ".join(self._words(default)))
        return Step(str(command))

    def _env(self, command: Command) -> Step:
        given = self._words(command.rest)
        if given and "=" not in given[0]:
            # The old form: A the rest
            added = {given[0]: " ".join(given[1:])}
        else:
            added = dict(word.split("=", 1) for word in given if "=" in word)
        self.settings = replace(self.settings, variables={**self.settings.variables, **added})
        return Step(str(command))

    def _workdir(self, command: Command) -> Step:
        path = " ".join(self._words(command.rest))
        self.settings = replace(self.settings, workdir=posixpath.join(self.settings.workdir or "/", path))
        return Step(str(command))

    def _copy(self, command: Command) -> Step:
        flags = [word for word in self._words(command.rest) if word.startswith("--")]
        sources_and_target = [word for word in self._words(command.rest) if not word.startswith("--")]
        if any(flag.startswith("--from=ghcr.io/astral-sh/uv:") for flag in flags):
            # The uv that the SDK's own uv_pip_install brings along: pip installs here.
            return Step(str(command))
        if flags and any(not flag.startswith(("--chown", "--link")) for flag in flags):
            return _not_executed(command, f"{flags[0].partition('=')[0]} is not known here")
        *sources, target = sources_and_target or [""]
        if sources == ["/python/."]:
            # add_python: a Python of Modal's, as a mount that is empty here.
            return Step(str(command), note=f"containers here run this machine's Python {platform.python_version()}")
        if sources == [_CLIENT_REQUIREMENTS]:
            return Step(str(command))
        where = posixpath.join(self.settings.workdir or "/", target)
        return Step(str(command), Copy(copied(sources, where, self._context)))

    def _add(self, command: Command) -> Step:
        source = command.rest.partition(" ")[0]
        if "://" in source or source.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
            return _not_executed(command, "ADD only copies files here")
        return self._copy(command)

    def _run(self, command: Command) -> Step:
        if not self._has_base:
            return _not_executed(command, "the image that it would run in is not pulled")
        if _CLIENT_REQUIREMENTS in self._context and "install" in command.rest:
            return _not_executed(command, "containers have this machine's modal and what it needs")
        try:
            install = install_of(command.rest, {**self._known, **self._secrets})
        except NotAnInstall as error:
            return _not_executed(command, str(error))
        variables = {**self.settings.variables, **self._secrets}
        return Step(str(command), RunPip(install, variables, self.settings.workdir))

    def _unknown(self, command: Command) -> Step:
        return _not_executed(command, f"{command.verb} means nothing to containers here")

    def _words(self, text: str) -> list[str]:
        try:
            return words(text, self._known, keep_unknown=True)
        except NeedsShell:
            # To a Dockerfile these characters are like any other.
            return shlex.split(text)


def _not_executed(command: Command, why: str) -> Step:
    return Step(str(command), note=f"not executed here: {why}")


def copied(sources: Sequence[str], target: str, context: Mapping[str, Source]) -> dict[str, Source]:
    """Return what ``COPY sources target`` places where; RecipeError for a source that the context does not have.

    A folder's content is copied, not the folder; a target with ``/`` at its end is a folder.
    """
    placed: dict[str, Source] = {}
    for source in sources:
        # Context paths are absolute; what a COPY names is relative to the context's root.
        path = posixpath.normpath(f"/{source.lstrip('/')}")
        matches = [path] if path in context or not any(c in path for c in "*?[") else _matching(path, context)
        into = target.endswith(("/", "/.")) or len(sources) > 1 or matches != [path]
        before = len(placed)
        for match in matches:
            if match in context:
                where = posixpath.join(target, posixpath.basename(match)) if into else target
                placed[posixpath.normpath(where)] = context[match]
                continue
            folder = match.rstrip("/") + "/"
            for name in context:
                if name.startswith(folder):
                    placed[posixpath.normpath(posixpath.join(target, name[len(folder) :]))] = context[name]
        if len(placed) == before and path != "/":
            raise RecipeError(f"COPY found no {source!r}: it is not among the files that were sent for this layer")
    return placed


def _matching(pattern: str, context: Mapping[str, Source]) -> list[str]:
    """The files and folders of the context that a pattern means; a ``*`` does not match a ``/``."""
    depth = pattern.count("/")
    prefixes = dict.fromkeys("/".join(name.split("/")[: depth + 1]) for name in context)
    parts = pattern.split("/")
    return [
        name
        for name in prefixes
        if len(name.split("/")) == len(parts)
        and all(fnmatch.fnmatchcase(one, part) for one, part in zip(name.split("/"), parts, strict=True))
    ]
