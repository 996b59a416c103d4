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

_RUNS = "its value is known only while the file runs"

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
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._merged(scope, node, [left, right])
            case ast.Subscript(value=container, slice=key):
                return self._item(scope, node, self._read(scope, container), self._read(scope, key))
            case ast.Dict():
                return self._dict(scope, node)
            case ast.Call(func=ast.Name(id="str"), args=[part], keywords=[]):
                value = self._read(scope, part)
                is_text = isinstance(value.value, str | int | float)
                return Static(str(value.value), value.place) if is_text else scope.unknown(node, _RUNS)
            case ast.Call():
                return self._call(scope, node)
            case ast.Name(id=name):
                return scope.names[name] if name in scope.names else self._name(scope, node, name)
            case ast.Attribute(value=ast.Name(id=base), attr=name) if there := self._imported_file(scope.module, base):
                return self._name(_Scope(there, depth=scope.depth), node, name)
            case ast.Attribute(value=ast.Name(id=base), attr=name) if found := self._of_class(scope.module, base, name):
                return self._read(_Scope(found[0], depth=scope.depth), found[1])
        return scope.unknown(node, _RUNS)

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

    def _of_class(self, module: Module, base: str, name: str) -> tuple[Module, ast.expr] | None:
        """Return the value of an attribute in the body of a class of the folder, with its file."""
        there: Module | None = module
        if imported := module.imported(base):
            there, base = self._sources.find(module, imported[0], imported[1]), imported[2]
        value = there.attribute(base, name) if there is not None else None
        return (there, value) if there is not None and value is not None else None

    def _item(self, scope: _Scope, node: ast.expr, container: Static, key: Static) -> Static:
        """Return an element of a dict or a list."""
        match container.value, key.value:
            case Model() as model, str(name) if name in model.fields:
                return model.fields[name]
            case tuple(), int(index) if -len(container.items) <= index < len(container.items):
                return container.items[index]
            case Unknown(reason=reason), _:
                return scope.unknown(node, reason)
        return scope.unknown(node, _RUNS)

    def _merged(self, scope: _Scope, node: ast.expr, parts: list[ast.expr]) -> Static:
        """Return a dict made of dicts."""
        fields: dict[str, Static] = {}
        for part in parts:
            merged = self._read(scope, part)
            if merged.model is None:
                return scope.unknown(node, f"{_text(part)} is not a constant dict")
            fields |= merged.model.fields
        return Static(Model("", fields), scope.at(node))

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
            return scope.unknown(node, f"the result of {name or 'a function'}() is known only while the file runs")
        fields: dict[str, Static] = {}
        if node.args:
            merged = self._merged(scope, node, node.args) if name == "dict" else None
            if merged is None or merged.model is None:
                return scope.unknown(node, "it has arguments without a name")
            fields |= merged.model.fields
        for keyword in node.keywords:
            if keyword.arg is not None:
                fields[keyword.arg] = self._read(scope, keyword.value)
                continue
            more = self._read(scope, keyword.value)
            if more.model is None:
                return scope.unknown(node, f"**{_text(keyword.value)} is not a constant dict")
            fields |= more.model.fields
        if name == "modal_config":
            # As the function returns it.
            return Static(Model("", {"modal": Static(Model("", fields), scope.at(node))}), scope.at(node))
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
        given: dict[str, Static] = {}
        for keyword in call.keywords:
            value = self._read(scope, keyword.value)
            if keyword.arg is not None:
                given[keyword.arg] = value
            elif value.model is not None:
                given |= value.model.fields
            else:
                return None
        if any(isinstance(argument, ast.Starred) for argument in call.args):
            return None
        positional = [each.arg for each in (*parameters.posonlyargs, *parameters.args)]
        wanted = {*positional, *(each.arg for each in parameters.kwonlyargs)}
        defaults = dict(zip(reversed(positional), reversed(parameters.defaults), strict=False))
        only = zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
        defaults |= {each.arg: value for each, value in only if value is not None}
        above = _Scope(module, depth=scope.depth)
        names = {name: self._read(above, value) for name, value in defaults.items()}
        values = [self._read(scope, value) for value in call.args]
        names |= dict(zip(positional, values, strict=False))
        names |= {name: value for name, value in given.items() if name in wanted}
        rest = {name: value for name, value in given.items() if name not in wanted}
        if set(names) != wanted:
            return None
        if (len(values) > len(positional) and not parameters.vararg) or (rest and not parameters.kwarg):
            return None
        if parameters.vararg:
            names[parameters.vararg.arg] = Static(tuple(values[len(positional) :]), scope.at(call))
        if parameters.kwarg:
            names[parameters.kwarg.arg] = Static(Model("", rest), scope.at(call))
        return names


def _text(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
