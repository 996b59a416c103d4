"""The bytecode of an image's packages: without it, every new container compiles each module that it imports.

Runs in the image while it is built, after everything is installed. Modal's ``uv_pip_install`` compiles what it
installs. The other packages of a user's image may have no bytecode, nor does the standard library of some images.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: Packages that no task imports, and modalflow, whose source is added when a container starts.
_LEFT_OUT = frozenset({"__pycache__", "test", "tests", "lib2to3", "idlelib", "turtledemo", "modalflow"})


def compile_packages() -> None:
    """Compile each installed module that has no bytecode. A module that cannot be compiled stays as it is."""
    for folder in dict.fromkeys(map(os.path.realpath, sys.path)):
        # The app's own files come with the container, and are not of the image.
        if folder.startswith((sys.prefix, sys.base_prefix)):
            for path in _uncompiled(folder):
                compileall.compile_file(path, quiet=2)


def _uncompiled(folder: str) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        # Only identifiers can be imported: the others are data, or folders of the path themselves.
        folders[:] = [name for name in folders if name.isidentifier() and name not in _LEFT_OUT]
        paths = [Path(place, name) for name in names if name[:-3].isidentifier() and name.endswith(".py")]
        if not paths:
            continue
        bytecode = {path: Path(importlib.util.cache_from_source(path)) for path in paths}
        try:
            there = set(bytecode[paths[0]].parent.iterdir())
        except OSError:
            there = set()
        yield from (path for path, compiled in bytecode.items() if compiled not in there)
