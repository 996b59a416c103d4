"""The differences between a deployment and the recorded one, for the output of `modalflow deploy` and `--dry-run`.

Compares two records and does no I/O. If the record is of another version of modalflow, fields that this version does
not have are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from modalflow.protocol.messages import Deployment


class ChangeKind(StrEnum):
    """The kind of a difference."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """One difference."""

    kind: ChangeKind
    what: str
    """profile, package, requirement, bundle, variable, or the name of something that exists only once."""
    name: str = ""
    detail: str = ""

    def as_dict(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


_SINGLE = {
    "version": "modalflow",
    "airflow_version": "Airflow",
    "python_version": "Python",
    "dags_source": "source of DAGs",
}


def changes(before: Deployment | None, after: Deployment) -> list[Change]:
    """Return every difference, profiles first. Without a record, everything is added."""
    found = [*_profiles(before, after)]
    found += _named("variable", before.env if before else {}, after.env, _no_detail)
    found += _named("bundle", before.bundles if before else {}, after.bundles, _value)
    for name, called in _SINGLE.items():
        old, new = getattr(before, name) if before else "", getattr(after, name)
        if before is not None and old != new:
            found.append(Change(ChangeKind.CHANGED, called, detail=f"{old or 'none'} → {new or 'none'}"))
    found += _named("package", before.packages if before else {}, after.packages, _value)
    old_lines = dict.fromkeys(before.requirements if before else (), "")
    found += _named("requirement", old_lines, dict.fromkeys(after.requirements, ""), _no_detail)
    return found


def _profiles(before: Deployment | None, after: Deployment) -> Iterator[Change]:
    old_names = before.profiles if before is not None else ()
    for name in after.profiles:
        facts = after.facts.get(name, {})
        if name not in old_names:
            yield Change(
                ChangeKind.ADDED, "profile", name, ", ".join(f"{key}={_shown(value)}" for key, value in facts.items())
            )
        elif before is not None and name in before.facts and (fields := _fields(before.facts[name], facts)):
            yield Change(ChangeKind.CHANGED, "profile", name, "; ".join(fields))
    for name in old_names:
        if name not in after.profiles:
            yield Change(ChangeKind.REMOVED, "profile", name)


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "env":
            before, after = before or {}, after or {}
            names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            found.append(f"env: {', '.join(names)}")
        else:
            found.append(f"{key} {_shown(before)} → {_shown(after)}")
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "Modal's own"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {each}" for key, each in value.items()) + "}"
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _named(
    what: str, old: Mapping[str, str], new: Mapping[str, str], detail: Callable[[str, str], str]
) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield Change(ChangeKind.ADDED, what, name, detail(name, new[name]))
        elif name not in new:
            yield Change(ChangeKind.REMOVED, what, name)
        elif old[name] != new[name]:
            both = f"{detail(name, old[name])} → {detail(name, new[name])}"
            yield Change(ChangeKind.CHANGED, what, name, both.strip(" →"))


def _value(name: str, value: str) -> str:
    return value


def _no_detail(name: str, value: str) -> str:
    # The value is a digest, or there is none.
    return ""
