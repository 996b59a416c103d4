"""Recognise installations in a ``RUN`` line: command lines of pip and uv.

Owns the recognition, and is strict: other commands raise ``NotAnInstall`` with the reason. pip itself is run by pip.py.
The forms are those of ``modal/_image.py``, the same from 1.5.0 to 1.6.4:

``python -m pip install …``
    pip_install, pip_install_from_requirements, pip_install_from_pyproject
``python3 -m pip install "git+https://user:$TOKEN@…" …``
    pip_install_private_repos
``/.uv/uv pip install --python $(command -v python) --compile-bytecode …``
    uv_pip_install

and the usual forms of run_commands and Dockerfiles: ``pip install …``, ``uv pip install --system …``.
"""

from __future__ import annotations

import platform
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modalflow.emulator.images.dockerfile.shell import ASSIGNMENT, NeedsShell, words

_SDK_UV = re.compile(r"/\.uv/uv pip install --python \$\(command -v python\)(?= |$)")

_SERIES = ".".join(platform.python_version_tuple()[:2])
#: The possible folders of an image's Python, pip and uv; without a folder, PATH decides.
_FOLDERS = frozenset({"", "/usr/local/bin", "/usr/bin", "/bin", "/.uv"})
_PYTHON_NAMES = frozenset({"python", "python3", f"python{_SERIES}"})
_PIP_NAMES = frozenset({"pip", "pip3", f"pip{_SERIES}"})
_UV_NAMES = frozenset({"uv"})

_BUILD_TOOLS = frozenset({"pip", "setuptools", "wheel", "uv"})
_OF_NO_CONSEQUENCE = frozenset(
    {
        "--upgrade",
        "-U",
        "--no-cache-dir",
        "--quiet",
        "-q",
        "-qq",
        "--verbose",
        "-v",
        "--disable-pip-version-check",
        "--no-input",
        "--root-user-action=ignore",
        "--break-system-packages",
    }
)

#: Options of pip with a file of further arguments as their value, and the same with the value in one word.
_FILE_OPTIONS = frozenset({"-r", "--requirement", "-c", "--constraint"})
_FILE_ARGUMENT = re.compile(r"--requirement=|--constraint=|-r(?=[^-=])|-c(?=[^-=])")

#: Options of pip with a target outside of the image's environment, or with a path on the host.
_ELSEWHERE = frozenset({"--target", "--prefix", "--root", "--user", "--python", "--src", "--log", "--report"})

#: Options of ``uv pip install`` → the equivalent ones of pip; None: none is needed.
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

#: The same for options with a value; None drops the value as well.
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
    """The error for a line not executed here. The text is the reason."""


@dataclass(frozen=True)
class Install:
    """An installation: the arguments of ``pip install``, with paths as in the image."""

    arguments: tuple[str, ...]

    def at(self, folder: str) -> Install:
        """Return the same with absolute names of files with further arguments."""
        made: list[str] = []
        for argument in self.arguments:
            option, path = "", argument
            if made[-1:] and made[-1] in _FILE_OPTIONS:
                pass
            elif (match := _FILE_ARGUMENT.match(argument)) is not None:
                option, path = match[0], argument[match.end() :]
            else:
                made.append(argument)
                continue
            is_elsewhere = "://" in path or path.startswith("/")
            made.append(argument if is_elsewhere else f"{option}{posixpath.join(folder or '/', path)}")
        return Install(tuple(made))


def install_of(command: str, variables: Mapping[str, str]) -> Install:
    """Read one command; ``variables`` are available to its words."""
    sdk = _SDK_UV.match(command)
    try:
        if sdk is not None:
            return Install(tuple(_of_uv(words(command[sdk.end() :], variables))))
        found = words(command, variables)
    except NeedsShell as error:
        raise NotAnInstall(str(error)) from error
    while found and (match := ASSIGNMENT.fullmatch(found[0])) is not None:
        variables = {**variables, match["name"]: match["value"]}
        found = found[1:]
    program, *arguments = found or [""]
    folder, _, name = program.rpartition("/")
    if folder not in _FOLDERS:
        raise NotAnInstall(f"{program} is not executed")
    if name in _UV_NAMES:
        return Install(tuple(_of_uv_command(arguments, variables)))
    if name.startswith("python"):
        if arguments[:2] != ["-m", "pip"]:
            raise NotAnInstall(f"{program} is not executed, except -m pip install")
        arguments = arguments[2:]
    elif name not in _PIP_NAMES:
        raise NotAnInstall(f"{program or command} is not executed")
    if name not in _PIP_NAMES | _PYTHON_NAMES:
        raise NotAnInstall(f"{program} is another Python than this machine's, {_SERIES}")
    return Install(tuple(_of_pip_command(arguments)))


def is_of_build_tools(install: Install) -> bool:
    """Return whether only build tools are installed: containers and builds here have this machine's."""
    named = [argument for argument in install.arguments if not argument.startswith("-")]
    flags = {argument for argument in install.arguments if argument.startswith("-")}
    names = {re.split(r"[=<>!~\[ ]", argument)[0].lower() for argument in named}
    return bool(named) and names <= _BUILD_TOOLS and flags <= _OF_NO_CONSEQUENCE


def _of_pip_command(arguments: Sequence[str]) -> list[str]:
    """Read pip's arguments, with general options before ``install``."""
    rest = list(arguments)
    general = []
    while rest and rest[0] in _OF_NO_CONSEQUENCE | {"--no-cache-dir", "--isolated"}:
        general.append(rest.pop(0))
    if not rest or rest[0] != "install":
        raise NotAnInstall("of pip only install is executed")
    return _of_pip([*general, *rest[1:]])


def _of_uv_command(arguments: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    rest = list(arguments)
    if rest[:2] != ["pip", "install"]:
        raise NotAnInstall("of uv only pip install is executed")
    pythons = [
        at for at, argument in enumerate(rest) if argument in ("--python", "-p") or argument.startswith("--python=")
    ]
    for at in reversed(pythons):
        given = rest[at].partition("=")[2] if "=" in rest[at] else rest[at + 1] if at + 1 < len(rest) else ""
        folder, _, name = given.rpartition("/")
        if folder not in _FOLDERS or name not in _PYTHON_NAMES | {_SERIES}:
            raise NotAnInstall(f"uv's option --python names another Python than this machine's, {_SERIES}")
        del rest[at : at + (1 if "=" in rest[at] else 2)]
    is_system = variables.get("UV_SYSTEM_PYTHON", "").lower() in ("1", "true", "yes", "on")
    if not (pythons or is_system or "--system" in rest):
        raise NotAnInstall("uv pip install needs --system to install into the Python of containers")
    return _of_uv(rest[2:])


def _of_pip(arguments: Sequence[str]) -> list[str]:
    for argument in arguments:
        name = argument.partition("=")[0]
        # pip accepts the beginning of an option's name, and -t's value without a space.
        begun = name.startswith("--") and name not in ("--", "--pre") and any(o.startswith(name) for o in _ELSEWHERE)
        if begun or argument.startswith("-t"):
            raise NotAnInstall(f"pip's option {name} leads outside of the image's packages")
    return list(arguments)


def _of_uv(arguments: Sequence[str]) -> list[str]:
    """Return pip's equivalent of uv's arguments."""
    translated: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            translated.append(argument)
            continue
        name, has_value, value = argument.partition("=")
        if name in _UV_OPTIONS and not has_value:
            translated += _UV_OPTIONS[name] or ()
        elif name == "--prerelease" or name in _UV_VALUES:
            if not has_value:
                if not rest:
                    raise NotAnInstall(f"uv's option {name} lacks its value")
                value = rest.pop(0)
            if name == "--prerelease":
                translated += ["--pre"] if value == "allow" else []
            elif (option := _UV_VALUES[name]) is not None:
                translated += [option, value]
        else:
            raise NotAnInstall(f"uv's option {name} has no counterpart in pip, the installer here")
    return translated
