"""The places in a DAG file that concern executors: keywords of tasks, default arguments, operators, hooks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from modalflow.operations.migration.static_values import Module, Place, called

#: Keywords of a task that concern executors.
KEYWORDS = ("executor_config", "executor", "queue")

_POD_OPERATORS = ("KubernetesPodOperator", "kubernetes", "kubernetes_cmd")
_POD_HOOK = "pod_mutation_hook"

#: Each use has one of these words, so other files need no search.
_WORDS = tuple(word.encode() for word in ("executor", "queue", *_POD_OPERATORS, _POD_HOOK))


@dataclass(frozen=True)
class Use:
    """A keyword of a task with its value, or an operator or hook of Kubernetes."""

    keyword: str
    """One of KEYWORDS, ``pod operator`` or ``pod_mutation_hook``."""
    task: str
    """The task's name as far as the file shows it, or where else the keyword stands."""
    place: Place
    value: ast.expr | None = None


def uses(module: Module) -> list[Use]:
    """Return the uses of a file by line."""
    if not any(word in module.source for word in _WORDS):
        return []
    nodes = list(ast.walk(module.tree))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    decorators = {id(decorator) for function in functions for decorator in function.decorator_list}
    defaults = {id(each.value) for each in nodes if isinstance(each, ast.keyword) and each.arg == "default_args"}
    found = [use for node in nodes for use in _of(module, node, decorators, defaults)]
    return sorted(found, key=lambda use: (use.place.line, use.keyword))


def _of(module: Module, node: ast.AST, decorators: set[int], defaults: set[int]) -> Iterator[Use]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            if node.name == _POD_HOOK:
                yield Use(_POD_HOOK, "", Place(module.path, node.lineno))
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    yield from _keywords(module, decorator, node.name)
        case ast.Call() if id(node) not in decorators:
            yield from _keywords(module, node, "")
        case ast.Assign(targets=[ast.Attribute(attr="executor_config" | "executor" as keyword) as target], value=value):
            yield Use(keyword, ast.unparse(target.value), Place(module.path, node.lineno), value)
        case ast.Assign(
            targets=[ast.Subscript(value=ast.Attribute(attr="executor_config") as target, slice=key)], value=of_key
        ):
            config = ast.copy_location(ast.Dict([key], [of_key]), of_key)
            yield Use("executor_config", ast.unparse(target.value), Place(module.path, node.lineno), config)
        case ast.Dict():
            for name, value in zip(node.keys, node.values, strict=True):
                is_keyword = isinstance(name, ast.Constant) and name.value in KEYWORDS
                if is_keyword and (id(node) in defaults or _are_arguments(node)):
                    assert isinstance(name, ast.Constant)
                    yield Use(str(name.value), "default arguments", Place(module.path, name.lineno), value)


def _keywords(module: Module, call: ast.Call, task: str) -> Iterator[Use]:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    task_id = named.get("task_id")
    name = _constant(task_id) or (ast.unparse(task_id) if task_id is not None else task) or _label(call)
    if called(call) in _POD_OPERATORS and "image" in named:
        yield Use("pod operator", name, Place(module.path, call.lineno), named.get("in_cluster"))
    if not (task or "task_id" in named or "executor_config" in named or called(call) == "override"):
        return  # Other functions have a keyword `queue`, too.
    for keyword in KEYWORDS:
        if (value := named.get(keyword)) is not None:
            line = next(each.value.lineno for each in call.keywords if each.arg == keyword)
            yield Use(keyword, name, Place(module.path, line), value)


def _label(call: ast.Call) -> str:
    """Return the name of a called function, and of the task for ``task.override``."""
    function = call.func
    if called(call) == "override" and isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.override"
    return called(call)


def _are_arguments(node: ast.Dict) -> bool:
    """Return whether a dict has arguments of tasks, as ``default_args`` has."""
    keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return "executor_config" in keys or bool(
        keys & {"owner", "retries", "retry_delay", "depends_on_past", "start_date"}
    )


def _constant(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
