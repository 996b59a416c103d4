"""Reading a fault's specification: ``TARGET:KIND[=VALUE][,OPTION=VALUE…]``.

Owns the grammar and the error messages. kinds.py has the kinds and their options.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modalflow.emulator.faults.spec.kinds import KINDS, OPTIONS, FaultKind, Scope, of_scope
from modalflow.emulator.faults.spec.values import Value, choice
from modalflow.emulator.rpc.handlers import rpc_table

_WORLD = {scope.value: scope for scope in Scope if scope is not Scope.RPC}


class FaultSpecError(ValueError):
    """A specification is invalid. The text holds the specification, the place and an example."""


@dataclass(frozen=True)
class FaultSpec:
    """The specification of one fault."""

    text: str
    kind: FaultKind
    pattern: str
    """The target, with wildcards: the name of an RPC, or the part behind the first slash."""
    value: Any = None
    point: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        return self.kind.scope

    def concerns(self, subject: str) -> bool:
        """Return whether it matches the RPC, object or ``APP/FUNCTION`` of that name."""
        if self.scope is Scope.CONTAINER and "/" not in self.pattern:
            return fnmatch.fnmatchcase(subject.partition("/")[0], self.pattern)
        return fnmatch.fnmatchcase(subject, self.pattern)


def parse(text: str) -> FaultSpec:
    """Read a specification; FaultSpecError for an invalid one."""
    target, colon, rest = text.strip().partition(":")
    if not colon or not target or not rest:
        raise _error(text, text, "expected TARGET:KIND", "FunctionMap:unavailable,p=0.1")
    scope, pattern = _target(text, target)
    first, *others = _split(rest)
    name, given, value_text = first.partition("=")
    kind = KINDS.get((scope, name))
    if kind is None:
        known = of_scope(scope)
        raise _error(
            text,
            name,
            f"{target!r} has no fault {name!r}; expected {_alternatives(name, known)}",
            next(iter(known.values())).example,
        )
    value = _value(text, kind, value_text if given else None)
    options, point = _options(text, kind, others)
    return FaultSpec(text.strip(), kind, pattern, value, point, options)


def _target(text: str, target: str) -> tuple[Scope, str]:
    head, slash, name = target.partition("/")
    if head in _WORLD:
        scope = _WORLD[head]
        if slash and (not name or scope in (Scope.CLOCK, Scope.WORLD)):
            raise _error(text, target, f"{head!r} takes no name here", next(iter(of_scope(scope).values())).example)
        return scope, name or "*"
    if not any(fnmatch.fnmatchcase(rpc, target) for rpc in rpc_table()):
        expected = _alternatives(target, [*rpc_table(), *_WORLD])
        raise _error(
            text,
            target,
            f"{target!r} is no RPC of the installed SDK and no other target; expected {expected}",
            "FunctionMap:unavailable,p=0.1",
        )
    return Scope.RPC, target


def _value(text: str, kind: FaultKind, given: str | None) -> Any:
    if kind.value is None:
        if given is not None:
            raise _error(text, f"{kind.name}={given}", f"{kind.name!r} takes no value", kind.example)
        return None
    if given is None:
        given = kind.default
        if given is None:
            raise _error(text, kind.name, f"{kind.name!r} needs {kind.value.expected}", kind.example)
    return _read(text, kind.name, kind.value, given, kind.example)


def _options(text: str, kind: FaultKind, parts: Iterable[str]) -> tuple[dict[str, Any], str]:
    known: dict[str, Value] = {name: OPTIONS[name].value for name in kind.options}
    if kind.points:
        known["at"] = choice(*kind.points)
    options: dict[str, Any] = {}
    for part in parts:
        name, given, value_text = part.partition("=")
        if name not in known or not given:
            expected = _alternatives(name, known) if known else "none"
            raise _error(
                text, part, f"{part!r} is no option of {kind.name!r}; expected NAME=VALUE with {expected}", kind.example
            )
        if name in options:
            raise _error(text, part, f"{name!r} is given twice", kind.example)
        options[name] = _read(text, name, known[name], value_text, kind.example)
    point = options.pop("at", kind.points[0] if kind.points else "")
    return options, point


def _read(text: str, name: str, value: Value, given: str, example: str) -> Any:
    try:
        return value.read(given)
    except ValueError:
        raise _error(
            text, f"{name}={given}", f"{name} is {given!r}; expected {value.expected}, e.g. {value.example}", example
        ) from None


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas; commas within parentheses do not count."""
    part, depth = "", 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            yield part.strip()
            part = ""
        else:
            part += character
    yield part.strip()


def _alternatives(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if close:
        return " or ".join(close)
    return "one of " + ", ".join(names) if len(names) <= 25 else "an RPC's name, * or one of " + ", ".join(_WORLD)


def _error(text: str, place: str, what: str, example: str) -> FaultSpecError:
    at = text.find(place) + 1
    where = f" at character {at}" if at > 0 else ""
    return FaultSpecError(f"fault {text!r}{where}: {what}. For example: {example}")
