"""Modules from this host's own folders: in PYTHONPATH, or in another folder on ``sys.path``.

A setting such as ``[core] xcom_backend = acme_xcom.FileXCom`` may name one. Reads files, and imports none of them.
"""

from __future__ import annotations

import ast
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import SOURCE_SUFFIXES, PathFinder
from pathlib import Path

#: A dotted path, as in settings that name a class.
_DOTTED = re.compile(r"(?<![\w./:@-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?![\w./:@-])")

#: Packages that every container has.
_EVERYWHERE = frozenset({"airflow", "modalflow"}) | sys.stdlib_module_names

#: Source files that are larger have no imports worth following.
_LARGEST_SOURCE = 4 << 20


def dotted_names(value: str) -> list[str]:
    """Return the dotted paths in the value of a setting: names of classes and modules, and maybe others."""
    return _DOTTED.findall(value)


def own_folders(path: Iterable[str], python_path: str, airflows: Iterable[Path]) -> list[Path]:
    """Return the folders on ``path`` (``sys.path``) without those of installed packages.

    ``airflows`` are added by Airflow itself, the plugins and ``config/``. They count only if they are in
    ``python_path`` (PYTHONPATH), because Airflow adds them too late for some of its own imports.
    """
    listed = {_real(each) for each in python_path.split(os.pathsep) if each}
    late = {_real(folder) for folder in airflows} - listed
    installed = _installed_folders()
    found = []
    for each in path:
        folder = _real(each or ".")
        if folder in found or folder in late or not os.access(folder, os.R_OK | os.X_OK) or not folder.is_dir():
            continue
        # Another folder of installed packages, as of `pip install --target`.
        if any(folder.glob("*.dist-info")):
            continue
        if not any(folder.is_relative_to(other) for other in installed):
            found.append(folder)
    return found


def _real(path: str | Path) -> Path:
    """Return a path without links. Unlike ``Path.resolve``, it raises nothing for a link to itself."""
    return Path(os.path.realpath(path))


def _installed_folders() -> list[Path]:
    """Return the folders of Python itself, of installed packages, and of packages installed as links to sources."""
    packages = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    folders = [Path(each).resolve() for each in packages]
    return [*folders, *(Path(line).resolve() for folder in folders for line in _linked(folder))]


def _linked(folder: Path) -> Iterator[str]:
    """Yield the folders in the ``.pth`` files of a folder of packages."""
    for file in sorted(folder.glob("*.pth")):
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        yield from (line for line in lines if Path(line).is_absolute())


class HostModules:
    """The modules that Python imports from ``folders``, and not from an installed package.

    A package is taken as a whole, since it may import its modules by name and read its own data. A package without
    ``__init__.py`` may be any folder, so only the modules in use are taken from it.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.found: dict[str, Path] = {}
        """Files and whole packages: path below the folder on ``sys.path`` → path on this machine."""
        self._taken: set[str] = set()
        self._own: dict[str, bool] = {}
        """Whether top-level modules are from the folders."""

    def add(self, names: Iterable[str]) -> None:
        """Find modules by dotted paths, maybe with the name of a class at the end, and everything they import."""
        waiting = list(names) if self._folders else []
        while waiting:
            for module in self._resolve(waiting.pop()):
                waiting += self._take(module)

    def add_imports_of(self, sources: Iterable[Path]) -> None:
        """Find the imports of source files."""
        if self._folders:
            for source in sources:
                self.add(imported(source, ""))

    def _take(self, module: str) -> list[str]:
        """Take a module, and return what it imports."""
        relative = Path(*module.split("."))
        for folder in self._folders:
            if (folder / relative / "__init__.py").is_file():
                self.found[str(relative)] = folder / relative
                sources = sorted((folder / relative).rglob("*.py"))
                return [name for source in sources for name in imported(source, _package_of(source, folder))]
            if (file := _module_file(folder / relative)) is not None:
                self.found[str(relative.parent / file.name)] = file
                return list(imported(file, module.rpartition(".")[0]))
        return []

    def _resolve(self, dotted: str) -> Iterator[str]:
        """Yield the module or package to take for a dotted path, unless it was taken before."""
        parts = dotted.split(".")
        if not self._is_own(parts[0]):
            return
        for length in range(1, len(parts) + 1):
            relative = Path(*parts[:length])
            if self._has(relative):
                if (name := ".".join(parts[:length])) not in self._taken:
                    self._taken.add(name)
                    yield name
                return
            if not any((folder / relative).is_dir() for folder in self._folders):
                return

    def _has(self, relative: Path) -> bool:
        return any(
            (folder / relative / "__init__.py").is_file() or _module_file(folder / relative) is not None
            for folder in self._folders
        )

    def _is_own(self, top: str) -> bool:
        if top not in self._own:
            self._own[top] = self._comes_from_here(top)
        return self._own[top]

    def _comes_from_here(self, name: str) -> bool:
        """Return whether Python would import a top-level module from one of the folders."""
        if name in _EVERYWHERE:
            return False
        try:
            spec = PathFinder.find_spec(name)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        if spec.origin is not None:
            file = Path(spec.origin)
            return (file.parent if file.stem != "__init__" else file.parent.parent).resolve() in self._folders
        return any(Path(each).parent.resolve() in self._folders for each in spec.submodule_search_locations or ())


def imported(source: Path, package: str) -> set[str]:
    """Return the imports of a source file of a package; empty if it is not valid Python.

    ``from a import b`` imports ``a``, and perhaps the module ``a.b``.
    """
    try:
        # To read a pipe would take forever.
        if not source.is_file() or source.stat().st_size > _LARGEST_SOURCE:
            return set()
        tree = ast.parse(source.read_bytes())
    except (MemoryError, OSError, SyntaxError, ValueError, RecursionError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names |= {f"{base}.{alias.name}" if alias.name != "*" else base for alias in node.names if base}
    return names


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _package_of(source: Path, folder: Path) -> str:
    return ".".join(source.relative_to(folder).parent.parts)


def _module_file(path: Path) -> Path | None:
    """Return the file of a module, given its path without an ending: its source, or a compiled extension."""
    if not path.parent.is_dir():
        return None
    for suffix in SOURCE_SUFFIXES:
        if (file := path.with_name(path.name + suffix)).is_file():
            return file
    return next((file for file in sorted(path.parent.glob(f"{path.name}.*.so"))), None)
