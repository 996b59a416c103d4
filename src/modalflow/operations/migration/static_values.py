"""Values in a DAG file as far as its source shows them: constants, names, dicts, lists and models of Kubernetes.

Evaluates trees of Python's grammar, and never runs a line of the file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Longest chain of names, and longest text of a source in a report.
_DEEPEST, _SHOWN = 50, 60


#: Methods that change a list or a dict.
_CHANGING = frozenset({"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"})


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

    def unknowns(self) -> Iterator[Static]:
        """Yield each part that depends on the run of the file."""
        if isinstance(self.value, Unknown):
            yield self
        for part in self.value.fields.values() if isinstance(self.value, Model) else self.items:
            yield from part.unknowns()


@dataclass
class Module:
    """A parsed file."""

    path: str
    """Relative to the folder."""
    tree: ast.Module

    def assigned(self, name: str) -> ast.expr | str:
        """Return the only value of a name at the top of the file, or the reason for having none."""
        found = [value for target, value in _assignments(self.tree) if target == name]
        if len(found) != 1:
            return f"{name} is assigned {len(found)} times" if found else f"{name} is not a constant of this file"
        if change := next((line for changed, line in _changes(self.tree) if changed == name), 0):
            return f"line {change} changes {name}"
        return found[0]

    def imported(self, name: str) -> tuple[str, int, str] | None:
        """Return (module, level, name there) of a name from another module."""
        for node in self.tree.body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return node.module or "", node.level, alias.name
        return None


class Sources:
    """The Python files of a folder, each parsed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module] = {}

    def module(self, path: Path) -> Module:
        """Return a parsed file; raise SyntaxError, UnicodeDecodeError or OSError."""
        relative = path.relative_to(self.root).as_posix()
        if relative not in self._modules:
            self._modules[relative] = Module(relative, ast.parse(path.read_bytes(), filename=relative))
        return self._modules[relative]

    def find(self, module: Module, name: str, level: int) -> Module | None:
        """Return the file of an imported module, if it is in the folder."""
        beside = (self.root / module.path).parent
        folders = [beside, self.root] if level == 0 else [([beside, *beside.parents][level - 1])]
        inner = name.replace(".", "/")
        for folder in folders:
            for path in (folder / f"{inner}.py", folder / inner / "__init__.py"):
                if path.is_file() and path.resolve().is_relative_to(self.root.resolve()):
                    try:
                        return self.module(path)
                    except (SyntaxError, ValueError, OSError, RecursionError):
                        return None
        return None


class Reader:
    """Reads values in the files of a folder."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def read(self, module: Module, node: ast.expr, depth: int = 0) -> Static:
        """Return the value of an expression at the top of a file."""
        place = Place(module.path, node.lineno)
        if depth > _DEEPEST:
            return Static(Unknown(_text(node), "it refers to itself"), place)
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None as constant):
                return Static(constant, place)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return Static(-number, place)
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return Static(tuple(self.read(module, part, depth + 1) for part in parts), place)
            case ast.JoinedStr(values=parts):
                return self._joined(module, node, parts, place, depth)
            case ast.FormattedValue(value=part, conversion=-1, format_spec=None):
                return self.read(module, part, depth + 1)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined(module, node, [left, right], place, depth)
            case ast.Dict():
                return self._dict(module, node, place, depth)
            case ast.Call():
                return self._call(module, node, place, depth)
            case ast.Name(id=name):
                return self._name(module, name, place, depth)
            case ast.Attribute(value=ast.Name(id=base), attr=name) if there := self._imported_file(module, base):
                return self._name(there, name, place, depth)
        return Static(Unknown(_text(node), "its value is known only while the file runs"), place)

    def _name(self, module: Module, name: str, place: Place, depth: int) -> Static:
        if imported := module.imported(name):
            there = self._sources.find(module, imported[0], imported[1])
            if there is None:
                return Static(Unknown(name, f"it comes from {imported[0] or '.'}, outside of the folder"), place)
            module, name = there, imported[2]
        value = module.assigned(name)
        if isinstance(value, str):
            return Static(Unknown(name, value), place)
        return self.read(module, value, depth + 1)

    def _imported_file(self, module: Module, name: str) -> Module | None:
        """Return the file that a name stands for after an import."""
        if imported := module.imported(name):
            inner = ".".join(filter(None, (imported[0], imported[2])))
            return self._sources.find(module, inner, imported[1])
        plain = {
            alias.asname or alias.name
            for node in module.tree.body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        return self._sources.find(module, name, 0) if name in plain else None

    def _joined(self, module: Module, node: ast.expr, parts: list[ast.expr], place: Place, depth: int) -> Static:
        """Return a text made of texts."""
        texts = [self.read(module, part, depth + 1).value for part in parts]
        if all(isinstance(text, str | int) for text in texts) and any(isinstance(text, str) for text in texts):
            return Static("".join(map(str, texts)), place)
        return Static(Unknown(_text(node), "a part of it is known only while the file runs"), place)

    def _dict(self, module: Module, node: ast.Dict, place: Place, depth: int) -> Static:
        fields: dict[str, Static] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                merged = self.read(module, value, depth + 1)
                if merged.model is None:
                    return Static(Unknown(_text(node), f"**{_text(value)} is not a constant dict"), place)
                fields |= merged.model.fields
            else:
                name = self.read(module, key, depth + 1).value
                if not isinstance(name, str):
                    return Static(Unknown(_text(node), f"its key {_text(key)} is not a constant text"), place)
                fields[name] = self.read(module, value, depth + 1)
        return Static(Model("", fields), place)

    def _call(self, module: Module, node: ast.Call, place: Place, depth: int) -> Static:
        name = called(node)
        if not (name == "dict" or re.match(r"V\d[A-Za-z]*[A-Z]|modal_config$", name)):
            return Static(Unknown(_text(node), f"a call of {name or 'a function'} runs only with the file"), place)
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            return Static(Unknown(_text(node), "it has arguments without a name"), place)
        fields = {str(each.arg): self.read(module, each.value, depth + 1) for each in node.keywords}
        return Static(Model("" if name == "dict" else name, fields), place)


def called(node: ast.Call) -> str:
    """Return the last name of a called function or class; empty if it has none."""
    function = node.func
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield every assignment of a file to a name. One in a function also counts: DAGs are often written in one."""
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


def _text(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
