"""A ``RUN`` line as a program with arguments, for control planes that execute it.

Owns the shell of a line, its here-documents and its flags. Installations that pip.py can do are left to it: it has
the packages of the host, and their cache. Nothing is executed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modalflow.emulator.images.dockerfile.lines import Command, DockerfileError, flags_and_rest, json_form
from modalflow.emulator.images.dockerfile.run_line import RunPip, outcome

SHELL = ("/bin/sh", "-c")

#: Shells with the syntax of shell.py.
_KNOWN_SHELLS = frozenset({("/bin/sh", "-c"), ("/bin/bash", "-c"), ("sh", "-c"), ("bash", "-c")})

#: Commands with an output, or with an end of the build, in lists of installations.
_SHOWN = re.compile(r"\b(?:echo|printf|sleep|exit|false)\b")

_WITHOUT_EFFECT = ("--mount=type=cache", "--mount=type=tmpfs", "--network", "--security")

_ONLY_HEREDOC = re.compile(r"<<-?([\"']?)\w+\1")


@dataclass(frozen=True)
class RunCommand:
    """A program to run in the image, with the image's variables, folder and user at this point."""

    text: str
    program: tuple[str, ...]
    variables: Mapping[str, str]
    workdir: str
    user: str = ""


class NotRunnable(ValueError):
    """The error for a RUN that needs more than this machine has. The text is the reason."""


def actions_of(
    command: Command,
    *,
    shell: Sequence[str],
    exported: Mapping[str, str],
    arguments: Mapping[str, str],
    workdir: str,
    user: str,
) -> tuple[RunPip | RunCommand, ...]:
    """Return what a RUN does; NotRunnable if it cannot be executed.

    ``exported`` are the variables of programs, ``arguments`` those of ARG.
    """
    flags, text = flags_and_rest(command.rest)
    if not text:
        raise DockerfileError("RUN needs a command, e.g. RUN pip install numpy")
    unknown = [flag for flag in flags if not flag.startswith(_WITHOUT_EFFECT)]
    if unknown:
        raise NotRunnable(f"the option {unknown[0].partition(',')[0]} is not supported")
    is_usual = tuple(shell) in _KNOWN_SHELLS and user in ("", "root", "0")
    if is_usual and not command.heredocs and not _SHOWN.search(text):
        found = outcome(command, exported, arguments, workdir)
        installs = tuple(action for action in found.actions if isinstance(action, RunPip))
        if installs and not found.missing and len(installs) == len(found.actions):
            return installs
    program = json_form(text)
    if program is None:
        program = [*shell, _script(command, text)]
    elif not program:
        raise DockerfileError('RUN needs a program, e.g. RUN ["pip", "install", "numpy"]')
    return (RunCommand(str(command), tuple(program), {**arguments, **exported}, workdir, user),)


def _script(command: Command, text: str) -> str:
    """Return the text for a shell: a here-document alone is the script, otherwise it is the shell's."""
    if len(command.heredocs) == 1 and _ONLY_HEREDOC.fullmatch(text):
        (only,) = command.heredocs
        if only.text.startswith("#!"):
            raise NotRunnable("a here-document with a first line #! is not supported; write the file with COPY")
        return only.text
    return "".join((text, *(f"\n{document.text}{document.mark}" for document in command.heredocs)))
