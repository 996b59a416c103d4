"""Reading values in DAG files, as far as their source shows them.

Evaluates trees of Python's grammar, and never runs a line of a file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from modalflow.operations.migration.static_values import Model, Module, Place, Sources, Static, Unknown, called

#: Longest chain of names and calls, and most steps for one value. A file can refer to itself many times.
_DEEPEST, _MOST_STEPS = 50, 20_000

#: Longest text of a source in a report.
_SHOWN = 60


@dataclass(frozen=True)
class _Scope:
    """The file of an expression, and the names of the function around it."""

    module: Module
    names: Mapping[str, Static] = field(default_factory=dict)
    depth: int = 0

    def at(self, node: ast.expr) -> Place:
        return Place(self.module.path, node.lineno)

    def unknown(self, node: ast.expr, reason: str) -> Static:
        return Static(Unknown(_text(node), reason), self.at(node))


class Reader:
    """Reads values in the files of a folder."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._steps = 0

    def read(self, module: Module, node: ast.expr) -> Static:
        """Return the value of an expression."""
        self._steps = 0
        return self._read(_Scope(module), node)

    def _read(self, outer: _Scope, node: ast.expr) -> Static:
        scope = replace(outer, depth=outer.depth + 1)
        self._steps += 1
        if scope.depth > _DEEPEST:
            return scope.unknown(node, "it refers to itself")
        if self._steps > _MOST_STEPS:
            return scope.unknown(node, "it is too large")
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None as constant):
                return Static(constant, scope.at(node))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return Static(-number, scope.at(node))
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return Static(tuple(self._read(scope, part) for part in parts), scope.at(node))
            case ast.JoinedStr(values=parts):
                return self._joined(scope, node, parts)
            case ast.FormattedValue(value=part, conversion=-1, format_spec=None):
                return self._read(scope, part)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined(scope, node, [left, right])
            case ast.Dict():
                return self._dict(scope, node)
            case ast.Call():
                return self._call(scope, node)
            case ast.Name(id=name):
                return scope.names[name] if name in scope.names else self._name(scope, node, name)
            case ast.Attribute(value=ast.Name(id=base), attr=name) if there := self._imported_file(scope.module, base):
                return self._name(_Scope(there, depth=scope.depth), node, name)
        return scope.unknown(node, "its value is known only while the file runs")

    def _name(self, scope: _Scope, node: ast.expr, name: str) -> Static:
        module = scope.module
        if imported := module.imported(name):
            there = self._sources.find(module, imported[0], imported[1])
            if there is None:
                return scope.unknown(node, f"it comes from {imported[0] or '.'}, outside of the folder")
            module, name = there, imported[2]
        value = module.assigned(name)
        if isinstance(value, str):
            return scope.unknown(node, value)
        return self._read(_Scope(module, depth=scope.depth), value)

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

    def _joined(self, scope: _Scope, node: ast.expr, parts: list[ast.expr]) -> Static:
        """Return a text made of texts."""
        texts = [self._read(scope, part).value for part in parts]
        if all(isinstance(text, str | int) for text in texts) and any(isinstance(text, str) for text in texts):
            return Static("".join(map(str, texts)), scope.at(node))
        return scope.unknown(node, "a part of it is known only while the file runs")

    def _dict(self, scope: _Scope, node: ast.Dict) -> Static:
        fields: dict[str, Static] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                merged = self._read(scope, value)
                if merged.model is None:
                    return scope.unknown(node, f"**{_text(value)} is not a constant dict")
                fields |= merged.model.fields
            else:
                name = self._read(scope, key).value
                if not isinstance(name, str):
                    return scope.unknown(node, f"its key {_text(key)} is not a constant text")
                fields[name] = self._read(scope, value)
        return Static(Model("", fields), scope.at(node))

    def _call(self, scope: _Scope, node: ast.Call) -> Static:
        name = called(node)
        if not (name == "dict" or re.match(r"V\d[A-Za-z]*[A-Z]|modal_config$", name)):
            if (target := self._function(scope.module, node.func)) is not None:
                return self._result(scope, node, *target)
            return scope.unknown(node, f"a call of {name or 'a function'} runs only with the file")
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            return scope.unknown(node, "it has arguments without a name")
        fields = {str(each.arg): self._read(scope, each.value) for each in node.keywords}
        return Static(Model("" if name == "dict" else name, fields), scope.at(node))

    def _function(self, module: Module, node: ast.expr) -> tuple[Module, ast.FunctionDef] | None:
        """Return a called function of the folder, with its file."""
        name, there = "", module
        match node:
            case ast.Name(id=name):
                if imported := module.imported(name):
                    found = self._sources.find(module, imported[0], imported[1])
                    if found is None:
                        return None
                    there, name = found, imported[2]
            case ast.Attribute(value=ast.Name(id=base), attr=name) if found := self._imported_file(module, base):
                there = found
        function = there.function(name)
        return (there, function) if function is not None else None

    def _result(self, scope: _Scope, call: ast.Call, module: Module, function: ast.FunctionDef) -> Static:
        """Return what a function returns, if it only assigns names and returns a value."""
        names = self._arguments(scope, call, module, function)
        if names is None:
            return scope.unknown(call, f"the arguments of {function.name} cannot be matched")
        for statement in function.body:
            inner = _Scope(module, dict(names), scope.depth)
            match statement:
                case ast.Expr(value=ast.Constant()):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self._read(inner, value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    names[name] = self._read(inner, value)
                case ast.Return(value=ast.expr() as value):
                    return self._read(inner, value)
                case _:
                    break
        return scope.unknown(call, f"{function.name} does more than assign names and return a value")

    def _arguments(
        self, scope: _Scope, call: ast.Call, module: Module, function: ast.FunctionDef
    ) -> dict[str, Static] | None:
        """Return the value of each parameter; None if the source does not show it."""
        parameters = function.args
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        starred = any(isinstance(argument, ast.Starred) for argument in call.args) or None in given
        if starred or parameters.vararg or parameters.kwarg:
            return None
        positional = [each.arg for each in (*parameters.posonlyargs, *parameters.args)]
        if len(call.args) > len(positional):
            return None
        defaults = dict(zip(reversed(positional), reversed(parameters.defaults), strict=False))
        only = zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
        defaults |= {each.arg: value for each, value in only if value is not None}
        above = _Scope(module, depth=scope.depth)
        names = {name: self._read(above, value) for name, value in defaults.items()}
        names |= {name: self._read(scope, value) for name, value in zip(positional, call.args, strict=False)}
        names |= {str(name): self._read(scope, value) for name, value in given.items()}
        wanted = {*positional, *(each.arg for each in parameters.kwonlyargs)}
        return names if set(names) == wanted else None


def _text(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
