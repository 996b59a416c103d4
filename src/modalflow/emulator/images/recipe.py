"""The recipe of a layer: the steps of its definition, and which of them are executed here.

Owns the meaning of Dockerfile instructions. ENV, WORKDIR and COPY have their effect, RUN only for installations
(dockerfile/run_line.py). Every other instruction becomes a step with a note about its missing effect. Nothing is
executed here, but in builder.py.
"""

from __future__ import annotations

import os
import platform
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modal_proto import api_pb2

from modalflow.emulator.definitions.definition_check import lines_without_effect
from modalflow.emulator.images import python_envs
from modalflow.emulator.images.building import interpreters
from modalflow.emulator.images.building.root_below import RootBelow
from modalflow.emulator.images.dockerfile.actions import Begin, ProvideUv
from modalflow.emulator.images.dockerfile.copy_line import RecipeError, Source, copied, with_mode
from modalflow.emulator.images.dockerfile.lines import (
    Command,
    DockerfileError,
    commands,
    fields,
    flags_and_rest,
    json_form,
    pairs,
    value,
)
from modalflow.emulator.images.dockerfile.run_command import SHELL, NotRunnable, RunCommand, actions_of
from modalflow.emulator.images.dockerfile.run_line import Fail, RunPip, outcome

#: The first line of debian_slim. Modal keeps it built in its global namespace.
_DEBIAN_SLIM = re.compile(r"python:(?P<series>\d+\.\d+)\S*-slim-\w+$")

_PYTHON = re.compile(r"(?:docker\.io/)?(?:library/)?python:(?P<series>\d+\.\d+)(?![\d])")

#: Instructions without an effect here, although they would change a function's container on Modal.
_CHANGES_CONTAINERS = frozenset({"USER", "ENTRYPOINT", "ONBUILD"})

#: The request of these instructions is fulfilled anyway.
_USUAL = frozenset({"USER root", "USER 0", "ENTRYPOINT []"})

#: Shells with the syntax of dockerfile/shell.py. The last one is micromamba's, a bash.
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "_dockerfile_shell.sh"})

#: Modal's own requirements, installed into images of old image builders: containers here have the host's client.
_CLIENT_REQUIREMENTS = "/modal_requirements.txt"


@dataclass(frozen=True)
class Copy:
    """Files to place: path in the image → source."""

    files: Mapping[str, Source]


Action = Begin | Copy | ProvideUv | RunPip | RunCommand | Fail


@dataclass(frozen=True)
class Step:
    """An instruction, its actions and a note for the user."""

    text: str
    actions: tuple[Action, ...] = ()
    note: str = ""
    missing: tuple[str, ...] = ()
    """The parts not executed, so that containers may lack their results."""
    refused: str = ""
    """Why a command of it is not executed; empty if all are, or if none has an effect on files."""


@dataclass(frozen=True)
class ImageSettings:
    """The settings of a layer with those below it, apart from files."""

    variables: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    base: str = ""
    """The id of the image with the first files and packages; empty: the host's alone."""
    missing: tuple[str, ...] = ()
    """The steps not executed."""
    shell: tuple[str, ...] = SHELL
    """The program for commands, by SHELL."""
    user: str = ""
    """The user of commands, by USER; empty: root."""


@dataclass(frozen=True)
class Recipe:
    """A layer to be made."""

    settings: ImageSettings
    steps: tuple[Step, ...]

    @property
    def has_work(self) -> bool:
        """Return whether there is anything to do or to log."""
        return any(step.actions or step.note for step in self.steps)


def read(
    definition: api_pb2.Image,
    *,
    is_global: bool,
    bases: Mapping[str, ImageSettings],
    context: Mapping[str, Source],
    secrets: Mapping[str, str],
    root: RootBelow | None = None,
) -> Recipe:
    """Read a definition. ``bases`` are the images named by FROM, ``context`` the files for COPY.

    With the ``root`` below the image, a RUN is a command to execute; otherwise only its installations are.
    """
    reader = _Reader(definition, is_global, bases, context, secrets, root)
    try:
        for command in commands(definition.dockerfile_commands):
            reader.read(command)
    except DockerfileError as error:
        raise RecipeError(f"the Dockerfile cannot be read: {error}") from error
    return Recipe(reader.settings, (*reader.steps, *_options_without_effect(definition)))


def _options_without_effect(definition: api_pb2.Image) -> Iterator[Step]:
    """Yield a step for each build option without support here."""
    for line in lines_without_effect(definition):
        yield Step("options of the image", note=f"it {line}")
    if definition.volume_mounts and not definition.HasField("build_function"):
        paths = ", ".join(mount.mount_path for mount in definition.volume_mounts)
        yield Step(f"volumes at {paths}", note="not mounted: only pip is executed, and it sees the image alone")


@dataclass(frozen=True)
class _Stage:
    """The state of an image or an earlier stage, handed on to later stages."""

    settings: ImageSettings
    actions: Mapping[int, tuple[Action, ...]] = field(default_factory=dict)


class _Reader:
    def __init__(
        self,
        definition: api_pb2.Image,
        is_global: bool,
        bases: Mapping[str, ImageSettings],
        context: Mapping[str, Source],
        secrets: Mapping[str, str],
        root: RootBelow | None,
    ) -> None:
        self.steps: list[Step] = []
        self._stages = {tag.lower(): _Stage(settings) for tag, settings in bases.items()}
        # A layer without FROM belongs to run_function: it has only the image below it.
        self.settings = next(iter(bases.values()), ImageSettings())
        self._has_stage = False
        self._uv = ""
        """Where uv's programs are wanted, and not provided yet."""
        self._actions: dict[int, tuple[Action, ...]] = {}
        """The steps' actions of this stage and its base stages, by their place among ``steps``."""
        self._stage_name = ""
        self._is_global = is_global
        self._is_slim = False
        self._context = context
        self._secrets = secrets
        self._root, self._runs_commands = root, root is not None
        self._given: dict[str, str] = dict(definition.build_args)
        self._global_arguments: dict[str, str] = {}
        self._arguments: dict[str, str] = {}
        self._other_shell = ""
        self._handlers: Mapping[str, Callable[[Command], Step]] = {
            "FROM": self._from,
            "ARG": self._arg,
            "ENV": self._env,
            "WORKDIR": self._workdir,
            "COPY": self._copy,
            "ADD": self._add,
            "RUN": self._run,
            "SHELL": self._shell,
            "USER": self._user,
        }

    def read(self, command: Command) -> None:
        if not self._has_stage and command.verb not in ("FROM", "ARG"):
            raise DockerfileError(f"{command.verb} comes before the first FROM; expected FROM with an image first")
        step = self._handlers.get(command.verb, self._without_effect)(command)
        if self._is_slim and command.verb != "FROM":
            # Modal's own base image was built long ago, on Modal as well.
            step = Step(step.text)
        self._actions[len(self.steps)] = step.actions
        self.steps.append(step)
        self.settings = replace(self.settings, missing=(*self.settings.missing, *step.missing))

    @property
    def _known(self) -> dict[str, str]:
        path = os.environ.get("PATH", os.defpath)
        if self._root is not None:
            path = self._root.search_path
            path = os.pathsep.join([str(python_envs.IN_IMAGE / "bin"), path])
        return {"PATH": path, **self._arguments, **self.settings.variables}

    def _from(self, command: Command) -> Step:
        _, rest = flags_and_rest(command.rest)
        image, *name = [value(word, {**self._global_arguments}) for word in fields(rest)] or [""]
        if not image or (name and (len(name) != 2 or name[0].upper() != "AS")):
            raise DockerfileError("FROM needs one image, e.g. FROM python:3.12-slim, or FROM python:3.12-slim AS name")
        if self._stage_name:
            self._stages[self._stage_name] = _Stage(self.settings, self._actions)
        found = self._stages.get(image.lower())
        self.settings, self._actions = (found.settings, dict(found.actions)) if found else (ImageSettings(), {})
        # A stage without a connection to this one leaves nothing in the image, except files taken by COPY --from.
        self.steps = [replace(step, actions=self._actions.get(at, ())) for at, step in enumerate(self.steps)]
        self._has_stage = True
        self._arguments, self._other_shell = {}, ""
        self._stage_name = name[1].lower() if name else ""
        slim = _DEBIAN_SLIM.match(image) if self._is_global else None
        self._is_slim = slim is not None
        if found is not None:
            return Step(str(command))
        if self._root is not None:
            return self._from_below(command, image, self._root)
        here = platform.python_version()
        python = slim or _PYTHON.match(image)
        if slim is None:
            note = f"not pulled: containers have this machine's files and its Python {here}"
            is_alike = python is not None and here.startswith(f"{python['series']}.")
            return Step(str(command), note=note, missing=() if is_alike else (f"FROM {image} (not pulled)",))
        if here.startswith(f"{slim['series']}."):
            return Step(str(command))
        note = f"Python {slim['series']} was asked for; containers here run this machine's Python {here}"
        return Step(str(command), note=note)

    def _from_below(self, command: Command, image: str, root: RootBelow) -> Step:
        """Read the FROM of an image of a registry: the root below takes its place, and a Python of its version."""
        self.settings = replace(self.settings, variables=dict(root.variables))
        match = _PYTHON.match(image)
        series = "" if match is None else match["series"]
        begin = () if root.is_host and series in ("", interpreters.HERE) else (Begin(series),)
        if self._is_slim:
            return Step(str(command), begin)
        below = "this machine's files are" if root.is_host else "the files of --base are"
        missing = () if series or not root.is_host else (f"FROM {image} (not pulled)",)
        return Step(str(command), begin, f"not pulled, no registry is asked: {below} below the image", missing)

    def _arg(self, command: Command) -> Step:
        words = fields(command.rest)
        if not words:
            raise DockerfileError("ARG needs a name, e.g. ARG VERSION=1")
        for word in words:
            name, has_default, default = word.partition("=")
            if not name:
                raise DockerfileError("ARG has a blank name; expected name or name=value")
            if name in self._given:
                self._declare(name, self._given[name])
            elif has_default:
                self._declare(name, value(default, self._known if self._has_stage else self._global_arguments))
            elif name in self._global_arguments:
                self._declare(name, self._global_arguments[name])
        return Step(str(command))

    def _declare(self, name: str, text: str) -> None:
        (self._arguments if self._has_stage else self._global_arguments)[name] = text

    def _env(self, command: Command) -> Step:
        added = pairs("ENV", command.rest, self._known)
        self.settings = replace(self.settings, variables={**self.settings.variables, **added})
        return Step(str(command))

    def _workdir(self, command: Command) -> Step:
        path = value(command.rest, self._known)
        if not path:
            raise DockerfileError("WORKDIR needs a path, e.g. WORKDIR /srv/app")
        where = posixpath.normpath(posixpath.join(self.settings.workdir or "/", path))
        self.settings = replace(self.settings, workdir=where)
        return Step(str(command))

    def _copy(self, command: Command) -> Step:
        flags, rest = flags_and_rest(command.rest)
        if any(flag.startswith("--from=ghcr.io/astral-sh/uv:") for flag in flags):
            return self._copy_uv(command, rest)
        listed = json_form(rest)
        words = [value(word, self._known) for word in fields(rest)] if listed is None else listed
        if len(words) < 2:
            raise DockerfileError(f"{command.verb} needs a source and a target, e.g. {command.verb} app.py /srv/")
        if unknown := [flag for flag in flags if not flag.startswith(("--chown", "--link", "--chmod"))]:
            return _not_executed(command, f"{unknown[0].partition('=')[0]} is not known here")
        *sources, target = words
        if sources == ["/python/."]:
            # add_python: a Python of Modal's, as a mount; it is empty here.
            return Step(str(command), note=f"containers here run this machine's Python {platform.python_version()}")
        if sources == [_CLIENT_REQUIREMENTS]:
            return Step(str(command))
        where = posixpath.join(self.settings.workdir or "/", target)
        context = dict(self._context)
        for heredoc in command.heredocs:
            text = heredoc.text if heredoc.literal else expanded(heredoc.text, self._known)
            context[f"/{heredoc.mark}"] = Source(data=text.encode())
        sources = [re.sub(r"^<<-?", "", source) if command.heredocs else source for source in sources]
        return Step(str(command), (Copy(with_mode(copied(sources, where, context), flags)),))

    def _copy_uv(self, command: Command, rest: str) -> Step:
        """Read the COPY of uv's programs. For the SDK's own uv_pip_install, pip installs, and uv may not be needed."""
        *_, target = fields(rest) or [""]
        self._uv = posixpath.join(self.settings.workdir or "/", target)
        return Step(str(command))

    def _add(self, command: Command) -> Step:
        _, rest = flags_and_rest(command.rest)
        sources = (json_form(rest) or fields(rest))[:-1]
        archives = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
        if any("://" in source or source.startswith("git@") or source.endswith(archives) for source in sources):
            return _not_executed(command, "ADD only copies files here")
        return self._copy(command)

    def _run(self, command: Command) -> Step:
        if _CLIENT_REQUIREMENTS in self._context and (
            "install" in command.rest or _CLIENT_REQUIREMENTS in command.rest
        ):
            # Modal's own layers.
            return Step(
                str(command), note="not executed here: containers have this machine's modal and its requirements"
            )
        if self._runs_commands:
            return self._run_command(command)
        if self._other_shell and not command.rest.startswith("["):
            return _not_executed(command, f"it is for the shell {self._other_shell}")
        exported = {**self.settings.variables, **self._secrets}
        found = outcome(command, exported, self._arguments, self.settings.workdir)
        if not found.missing:
            note = "" if found.actions else "not executed here: it would leave nothing in the image"
            return Step(str(command), tuple(found.actions), note)
        if not found.actions:
            return replace(_not_executed(command, found.why), missing=(str(command),))
        named = ", ".join(f"`{part}`" for part in found.missing)
        note = f"not executed here: {named} ({found.why})"
        missing = tuple(f"RUN {part}" for part in found.missing)
        return Step(str(command), tuple(found.actions), note, missing, refused=found.why)

    def _run_command(self, command: Command) -> Step:
        actions: tuple[Action, ...]
        try:
            actions = actions_of(
                command,
                shell=self.settings.shell,
                exported={**self.settings.variables, **self._secrets},
                arguments=self._arguments,
                workdir=self.settings.workdir,
                user=self.settings.user,
            )
        except NotRunnable as error:
            return _not_executed(command, str(error))
        if self._uv and any(isinstance(action, RunCommand) for action in actions):
            actions, self._uv = (ProvideUv(self._uv), *actions), ""
        return Step(str(command), actions)

    def _shell(self, command: Command) -> Step:
        program = json_form(command.rest)
        if not program:
            raise DockerfileError('SHELL needs a list, e.g. SHELL ["/bin/bash", "-c"]')
        self._other_shell = "" if posixpath.basename(program[0]) in _SHELLS else program[0]
        self.settings = replace(self.settings, shell=tuple(program))
        if self._runs_commands:
            return Step(str(command))
        return Step(str(command), note="not executed here: only pip is executed, without a shell")

    def _user(self, command: Command) -> Step:
        if not self._runs_commands:
            return self._without_effect(command)
        user = value(command.rest, self._known)
        if not user:
            raise DockerfileError("USER needs a name or a number, e.g. USER nobody")
        self.settings = replace(self.settings, user=user)
        note = "" if str(command) in _USUAL else "commands run as this user; functions run as root, as on Modal"
        return Step(str(command), note=note)

    def _without_effect(self, command: Command) -> Step:
        step = _not_executed(command, f"{command.verb} has no effect on containers here")
        is_missed = command.verb in _CHANGES_CONTAINERS and str(command) not in _USUAL
        return replace(step, refused="", missing=step.missing if is_missed else ())


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return a here-document with its variables replaced; quotes in it have no meaning."""
    return value(re.sub(r"""(['"])""", r"\\\1", text), variables)


def _not_executed(command: Command, why: str) -> Step:
    return Step(str(command), note=f"not executed here: {why}", missing=(str(command),), refused=why)
