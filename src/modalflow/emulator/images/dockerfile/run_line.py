"""The effect of a ``RUN`` line: its installations, the commands not executed, and failures.

Owns the evaluation of one RUN line. Only pip is ever executed, and only if the line's effect is certain. After a
command with an uncertain effect (``source``, a shell's syntax), the rest is not executed, but named.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from modalflow.emulator.images.dockerfile.lines import Command, DockerfileError, flags_and_rest, json_form
from modalflow.emulator.images.dockerfile.pip_commands import Install, NotAnInstall, install_of, is_of_build_tools
from modalflow.emulator.images.dockerfile.shell import ASSIGNMENT, NeedsShell, Part, ShellSyntaxError, parts, words

#: After these commands it is uncertain where a later one installs.
_UNCERTAIN_AFTER = frozenset(
    {".", "source", "eval", "exec", "alias", "trap", "unset", "pushd", "popd", "shift", "conda", "su"}
)

#: These have no effect on an image.
_WITHOUT_EFFECT = frozenset({"true", ":", "echo", "printf", "sleep"})

_SHELLS = frozenset({"sh", "bash", "/bin/sh", "/bin/bash"})


@dataclass(frozen=True)
class RunPip:
    """An installation, with the image's variables and working directory at this point."""

    install: Install
    variables: Mapping[str, str]
    workdir: str


@dataclass(frozen=True)
class Fail:
    """The end of the build: the line always ends with this exit code."""

    command: str
    exit_code: int


@dataclass
class RunOutcome:
    """The result of evaluating a RUN."""

    actions: list[RunPip | Fail] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """The commands not executed."""
    why: str = ""
    """The reason for the first of them."""

    def skip(self, command: str, why: str) -> None:
        self.missing.append(command)
        self.why = self.why or why


def outcome(command: Command, exported: Mapping[str, str], arguments: Mapping[str, str], workdir: str) -> RunOutcome:
    """Evaluate a RUN; ``exported`` are the variables of programs, ``arguments`` those of ARG."""
    flags, text = flags_and_rest(command.rest)
    found = RunOutcome()
    if not text:
        raise DockerfileError("RUN needs a command, e.g. RUN pip install numpy")
    mounts = [flag for flag in flags if not flag.startswith(("--mount=type=cache", "--mount=type=tmpfs", "--network"))]
    if mounts:
        found.skip(text, f"{mounts[0].partition('=')[0]} is not known here")
        return found
    if command.heredocs:
        found.skip(text, "a here-document needs a shell")
        return found
    program = json_form(text)
    if program is not None:
        is_shell = len(program) == 3 and program[0] in _SHELLS and program[1] in ("-c", "-ec", "-lc")
        text = program[2] if is_shell else shlex.join(program)
    try:
        listed = parts(text)
    except ShellSyntaxError:
        found.actions.append(Fail(text, 2))
        return found
    except NeedsShell as error:
        found.skip(text, str(error))
        return found
    _Reader({**arguments, **exported}, workdir, found).read(listed)
    return found


class _Reader:
    """The reader of a list of commands. It tracks every possible exit code."""

    def __init__(self, variables: dict[str, str], workdir: str, found: RunOutcome) -> None:
        self._variables, self._workdir, self._found = variables, workdir, found
        self._is_certain = True
        self._stops_at_errors = False
        self._exit_code: int | None = None

    def read(self, listed: list[Part]) -> None:
        # The exit codes of a shell already ended, and those of the last command otherwise.
        ended: set[int] = set()
        last = {0}
        for number, part in enumerate(listed):
            if part.joint == ";" and self._stops_at_errors and listed[number - 1].joint != "&&":
                ended |= last - {0}
                last &= {0}
            reached = last & {0} if part.joint == "&&" else last
            if not reached:
                continue
            self._exit_code = None
            own = self._one(part)
            last = (last - reached if part.joint == "&&" else set()) | (own or set())
            if own is None:
                ended |= reached if self._exit_code is None else {self._exit_code}
        codes = ended | last
        if codes and 0 not in codes:
            self._found.actions.append(
                Fail(" ".join(f"{part.joint} {part.text}".strip() for part in listed), min(codes))
            )

    def _one(self, part: Part) -> set[int] | None:
        """Evaluate one command; return its possible exit codes, None if it ends the shell."""
        try:
            found = words(part.text, self._variables)
        except NeedsShell:
            found = []
        given: dict[str, str] = {}
        while found and (match := ASSIGNMENT.fullmatch(found[0])) is not None:
            given[match["name"]] = match["value"]
            found = found[1:]
        if given and not found:
            self._variables |= given
            return {0}
        program, arguments = (found[0], found[1:]) if found else ("", [])
        if program == "exit" and (not arguments or re.fullmatch("[0-9]{1,9}", arguments[0])):
            self._exit_code = int(arguments[0]) % 256 if arguments else None
            return None
        if program == "cd" and len(arguments) == 1 and not arguments[0].startswith("-"):
            self._workdir = posixpath.normpath(posixpath.join(self._workdir or "/", arguments[0]))
            return {0, 1}
        if program == "export" and all(ASSIGNMENT.fullmatch(argument) for argument in arguments):
            self._variables |= dict(argument.split("=", 1) for argument in arguments)
            return {0}
        if program == "set" and arguments[:1] and arguments[0][:1] in "-+":
            self._stops_at_errors = self._stops_at_errors or "e" in arguments[0].partition("o")[0]
            return {0}
        if program == "false":
            return {1}
        if program in _WITHOUT_EFFECT:
            return {0}
        return self._installed(part, {**self._variables, **given})

    def _installed(self, part: Part, variables: Mapping[str, str]) -> set[int]:
        try:
            if not self._is_certain:
                raise NotAnInstall("a command before it may change its effect")
            install = install_of(part.text, variables)
        except NotAnInstall as error:
            self._found.skip(part.text, str(error))
            self._is_certain = self._is_certain and part.text.split()[0] not in _UNCERTAIN_AFTER
            return {0, 1}
        if not is_of_build_tools(install):
            self._found.actions.append(RunPip(install.at(self._workdir), variables, self._workdir))
        # If it fails, so does the build.
        return {0}
