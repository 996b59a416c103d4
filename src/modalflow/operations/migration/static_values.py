"""Parsed DAG files, and the values in them: constants, dicts, lists and models of Kubernetes, each with its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

#: Methods that change a list or a dict.
_CHANGING = frozenset({"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"})


#: Parsed files that are kept for the imports of others.
_KEPT = 100


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    path: str
    line: int


@dataclass(frozen=True)
class Unknown:
    """A value that depends on the run of the file."""

    source: str
    reason: str

    @property
    def why(self) -> str:
        """The reason as a part of a sentence."""
        return f"cannot be read without running the file: {self.reason}"


@dataclass(frozen=True)
class Model:
    """A call of a class such as ``V1Pod``, or a dict: names → values."""

    name: str
    """The class; empty for a dict."""
    fields: Mapping[str, Static]


@dataclass(frozen=True)
class Static:
    """A value, and its place."""

    value: str | int | float | bool | Model | tuple[Static, ...] | Unknown | None
    place: Place

    @property
    def model(self) -> Model | None:
        return self.value if isinstance(self.value, Model) else None

    @property
    def items(self) -> tuple[Static, ...]:
        """The elements of a list; empty for another value."""
        return self.value if isinstance(self.value, tuple) else ()

    def plain(self) -> Any:
        """Return the value as Python's own types, without unknown parts."""
        if isinstance(self.value, Model):
            return {name: value.plain() for name, value in self.value.fields.items()}
        return [item.plain() for item in self.value] if isinstance(self.value, tuple) else self.value

    def unknowns(self, name: str = "") -> Iterator[tuple[str, Static]]:
        """Yield each part that depends on the run of the file, with the name of its field."""
        if isinstance(self.value, Unknown):
            yield name, self
        for inner, part in self.value.fields.items() if isinstance(self.value, Model) else ():
            yield from part.unknowns(inner)
        for part in self.items:
            yield from part.unknowns(name)


@dataclass
class Module:
    """A parsed file."""

    path: str
    """Relative to the folder."""
    tree: ast.Module
    source: bytes = b""

    @cached_property
    def _assigned(self) -> dict[str, list[ast.expr]]:
        found: dict[str, list[ast.expr]] = {}
        for name, value in _assignments(self.tree):
            found.setdefault(name, []).append(value)
        return found

    @cached_property
    def _changed(self) -> dict[str, int]:
        """Name → the line that may change its value."""
        return dict(reversed(list(_changes(self.tree))))

    def assigned(self, name: str) -> ast.expr | str:
        """Return the only value of a name in the file, or the reason for having none."""
        found = self._assigned.get(name, [])
        if len(found) != 1:
            return f"{name} is assigned {len(found)} times" if found else f"{name} is not a constant of this file"
        if change := self._changed.get(name):
            return f"line {change} changes {name}"
        return found[0]

    def function(self, name: str) -> ast.FunctionDef | None:
        """Return the only function of a name at the top of the file, if nothing decorates it."""
        found = [node for node in self.tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        return found[0] if len(found) == 1 and not found[0].decorator_list else None

    def attribute(self, name: str, attribute: str) -> ast.expr | None:
        """Return the only value of an attribute in the body of a class at the top of the file.

        The names in a method are its own. A value below a condition depends on the run of the file.
        """
        bodies = [node.body for node in self.tree.body if isinstance(node, ast.ClassDef) and node.name == name]
        if len(bodies) != 1 or name in self._changed:
            return None
        found = [
            (node, value)
            for node in bodies[0]
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for assigned, value in _assignments(node)
            if assigned == attribute
        ]
        return found[0][1] if len(found) == 1 and isinstance(found[0][0], ast.Assign | ast.AnnAssign) else None

    def imported(self, name: str) -> tuple[str, int, str] | None:
        """Return (module, level, name there) of a name from another module."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return node.module or "", node.level, alias.name
        return None


class Sources:
    """The Python files of a folder. The trees of the last ones are kept: those of a large folder need gigabytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module] = {}

    def module(self, path: Path) -> Module:
        """Return a parsed file; raise SyntaxError, UnicodeDecodeError or OSError."""
        relative = path.relative_to(self.root).as_posix()
        module = self._modules.pop(relative, None)
        if module is None:
            if path.exists() and not path.is_file():
                # To read a named pipe waits for a writer.
                raise OSError("it is no regular file")
            source = path.read_bytes()
            module = Module(relative, ast.parse(source, filename=relative), source)
        self._modules[relative] = module
        if len(self._modules) > _KEPT:
            del self._modules[next(iter(self._modules))]
        return module

    def find(self, module: Module, name: str, level: int) -> Module | None:
        """Return the file of an imported module, if it is in the folder."""
        beside = (self.root / module.path).parent
        folders = [beside, self.root] if level == 0 else [beside, *beside.parents][level - 1 : level]
        inner = name.replace(".", "/")
        for folder in folders:
            for path in (folder / f"{inner}.py", folder / inner / "__init__.py"):
                try:
                    if path.is_file() and path.resolve().is_relative_to(self.root.resolve()):
                        return self.module(path)
                except (SyntaxError, ValueError, OSError, RecursionError):
                    # Also a name that is too long for a file.
                    return None
        return None


def called(node: ast.Call) -> str:
    """Return the last name of a called function or class; empty if it has none."""
    function = node.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _assignments(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield every assignment in a tree to a name. One in a function also counts: DAGs are often written in one."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def _changes(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each name whose value may be another one than its assignment's, and the line that makes it so."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.For(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
                yield name, node.lineno
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield _base(node), node.lineno
            case ast.Call(func=ast.Attribute(attr=method)) if method in _CHANGING:
                yield _base(node.func), node.lineno


def _base(node: ast.expr) -> str:
    """Return the name at the beginning of ``name.a[0].b``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
