"""The Python of an image: this machine's own, another version of it, or one in the image's files.

Owns the search. An environment for it is made by python_envs.py, with the packages of client_packages.py.
"""

from __future__ import annotations

import os
import platform
import posixpath
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modalflow.emulator.images.building.layered_tree import LayeredTree

#: The minor version of this process's Python.
HERE = ".".join(platform.python_version_tuple()[:2])

_NAME = re.compile(r"python(?P<series>3\.\d+)t?$")
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin", "/opt/conda/bin")

#: Seconds for an interpreter to report its version.
_PATIENCE = 20


@dataclass(frozen=True)
class Interpreter:
    """A Python by its path as containers see it, and its minor version."""

    path: str
    series: str


def on_host(series: str) -> Interpreter | None:
    """Return an interpreter of this machine: on PATH, uv's or pyenv's; None if it has none of that version."""
    for path in _candidates(series):
        if _reported(path) == series:
            return Interpreter(os.path.realpath(path), series)
    return None


def in_tree(tree: LayeredTree, series: str = "") -> Interpreter | None:
    """Return the interpreter in the files of an image, of that version if one is given; None if it has none."""
    for folder in _FOLDERS:
        for name in (f"python{series}",) if series else ("python3", "python"):
            path = tree.real_path(posixpath.join(folder, name))
            match = _NAME.search(path)
            if match is not None and tree.on_host(path) is not None:
                return Interpreter(path, match["series"])
    return None


def first_of_layers(tree: LayeredTree, path: str) -> Interpreter | None:
    """Return the first Python on a PATH, if a layer of the image has added it; None if it is from the root below.

    A virtual environment is known by its configuration, any other interpreter by its name.
    """
    for folder in path.split(os.pathsep):
        program = posixpath.join(folder, "python")
        if not folder.startswith("/") or not tree.is_of_layer(program):
            continue
        match = _NAME.search(tree.real_path(program))
        if match is not None:
            return Interpreter(program, match["series"])
    return None


def _candidates(series: str) -> Iterator[str]:
    name = f"python{series}"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if Path(folder, name).is_file() and "shims" not in Path(folder).parts:
            yield str(Path(folder, name))
    home = Path.home()
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    for installed in (*sorted(uv.glob(f"cpython-{series}.*")), *sorted(pyenv.glob(f"{series}.*"))):
        if (installed / "bin" / name).is_file():
            yield str(installed / "bin" / name)


def _reported(path: str) -> str:
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        found = subprocess.run(
            [path, "-I", "-c", program], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
