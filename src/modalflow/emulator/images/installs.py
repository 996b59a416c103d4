"""What a ``RUN`` line would install: the forms in which the SDK writes pip's and uv's command lines, read back.

Owns the recognition, strictly: what is not one of these forms raises ``NotAnInstall``, whose text says why. Running
pip is installing.py's. The forms are those of ``modal/_image.py``, the same from 1.5.0 to 1.6.4:

``python -m pip install …``
    pip_install, pip_install_from_requirements, pip_install_from_pyproject
``python3 -m pip install "git+https://user:$TOKEN@…" …``
    pip_install_private_repos
``/.uv/uv pip install --python $(command -v python) --compile-bytecode …``
    uv_pip_install
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modalflow.emulator.images.dockerfile import NeedsShell, words

_PIP = re.compile(r"python3? -m pip install(?= |$)")
_UV = re.compile(r"/\.uv/uv pip install --python \$\(command -v python\)(?= |$)")

#: Options of pip that lead elsewhere than into the image's environment, or write to a path of the host's.
_ELSEWHERE = frozenset({"--target", "--prefix", "--root", "--user", "--python", "--src", "--log", "--report"})

#: Options of ``uv pip install`` → those of pip that mean the same; None: nothing is left to be said to pip.
_UV_OPTIONS: Mapping[str, tuple[str, ...] | None] = {
    "--compile-bytecode": None,
    "--system": None,
    "--break-system-packages": None,
    "--no-progress": None,
    "--strict": None,
    "--no-cache": ("--no-cache-dir",),
    "-n": ("--no-cache-dir",),
    "--pre": ("--pre",),
    "--upgrade": ("--upgrade",),
    "-U": ("--upgrade",),
    "--reinstall": ("--force-reinstall",),
    "--no-build": ("--only-binary", ":all:"),
    "--no-index": ("--no-index",),
    "--no-deps": ("--no-deps",),
    "--no-build-isolation": ("--no-build-isolation",),
    "--require-hashes": ("--require-hashes",),
    "--quiet": ("--quiet",),
    "-q": ("--quiet",),
    "--verbose": ("--verbose",),
    "-v": ("--verbose",),
}

#: The same for those that take a value; None drops it as well.
_UV_VALUES: Mapping[str, str | None] = {
    "--find-links": "--find-links",
    "-f": "--find-links",
    "--index-url": "--index-url",
    "-i": "--index-url",
    "--default-index": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "--index": "--extra-index-url",
    "--requirements": "--requirement",
    "--requirement": "--requirement",
    "-r": "--requirement",
    "--constraints": "--constraint",
    "--constraint": "--constraint",
    "-c": "--constraint",
    "--editable": "--editable",
    "-e": "--editable",
    "--no-binary": "--no-binary",
    "--only-binary": "--only-binary",
    "--link-mode": None,
    "--index-strategy": None,
}


class NotAnInstall(ValueError):
    """The line is not one that is executed here. The text says why."""


@dataclass(frozen=True)
class Install:
    """What to install: the arguments of ``pip install``, paths among them as they are in the image."""

    arguments: tuple[str, ...]


def install_of(run: str, variables: Mapping[str, str]) -> Install:
    """Read what follows ``RUN``; ``variables`` are what its words may refer to."""
    for form, translate in ((_PIP, _of_pip), (_UV, _of_uv)):
        match = form.match(run)
        if match is not None:
            try:
                return Install(tuple(translate(words(run[match.end() :], variables))))
            except NeedsShell as error:
                raise NotAnInstall(str(error)) from error
    raise NotAnInstall("only what pip_install and uv_pip_install write is")


def _of_pip(arguments: Sequence[str]) -> list[str]:
    for argument in arguments:
        name = argument.partition("=")[0]
        # pip takes an option's beginning for the option, and -t's value without a space.
        begun = name.startswith("--") and name not in ("--", "--pre") and any(o.startswith(name) for o in _ELSEWHERE)
        if begun or argument.startswith("-t"):
            raise NotAnInstall(f"pip's option {name} leads elsewhere than into the image's packages")
    return list(arguments)


def _of_uv(arguments: Sequence[str]) -> list[str]:
    """Say the same to pip."""
    said: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            said.append(argument)
            continue
        name, has_value, value = argument.partition("=")
        if name in _UV_OPTIONS and not has_value:
            said += _UV_OPTIONS[name] or ()
        elif name == "--prerelease" or name in _UV_VALUES:
            if not has_value:
                if not rest:
                    raise NotAnInstall(f"uv's option {name} lacks its value")
                value = rest.pop(0)
            if name == "--prerelease":
                said += ["--pre"] if value == "allow" else []
            elif (option := _UV_VALUES[name]) is not None:
                said += [option, value]
        else:
            raise NotAnInstall(f"uv's option {name} has no counterpart in pip, which installs here")
    return said
