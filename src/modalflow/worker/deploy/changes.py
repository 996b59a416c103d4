"""What a deployment changes, against the one that is recorded: for whoever watches it, and for `--dry-run`.

Pure: compares two records. What is in a record of another version of modalflow and not in this one's is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from modalflow.protocol.messages import Deployment


class Kind(StrEnum):
    """How something changes."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """One difference."""

    kind: Kind
    what: str
    """profile, package, requirement, bundle, variable, or the name of something that there is one of."""
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
    """Every difference, profiles first. Without a record everything is added."""
    found = [*_profiles(before, after)]
    found += _named("variable", before.env if before else {}, after.env, lambda name, value: "")
    found += _named("bundle", before.bundles if before else {}, after.bundles, lambda name, value: value)
    for name, called in _SINGLE.items():
        old, new = getattr(before, name) if before else "", getattr(after, name)
        if before is not None and old != new:
            found.append(Change(Kind.CHANGED, called, detail=f"{old or 'none'} → {new or 'none'}"))
    found += _named("package", before.packages if before else {}, after.packages, lambda name, value: value)
    old_lines = dict.fromkeys(before.requirements if before else (), "")
    found += _named("requirement", old_lines, dict.fromkeys(after.requirements, ""), lambda name, value: "")
    return found


def _profiles(before: Deployment | None, after: Deployment) -> Iterator[Change]:
    old_names = before.profiles if before is not None else ()
    for name in after.profiles:
        facts = after.facts.get(name, {})
        if name not in old_names:
            yield Change(
                Kind.ADDED, "profile", name, ", ".join(f"{key}={_told(value)}" for key, value in facts.items())
            )
        elif before is not None and name in before.facts and (said := _fields(before.facts[name], facts)):
            yield Change(Kind.CHANGED, "profile", name, "; ".join(said))
    for name in old_names:
        if name not in after.profiles:
            yield Change(Kind.REMOVED, "profile", name)


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    said = []
    for key in dict.fromkeys([*old, *new]):
        was, will = old.get(key), new.get(key)
        if was == will:
            continue
        if key == "env":
            was, will = was or {}, will or {}
            names = sorted(name for name in {*was, *will} if was.get(name) != will.get(name))
            said.append(f"env: {', '.join(names)}")
        else:
            said.append(f"{key} {_told(was)} → {_told(will)}")
    return said


def _told(value: Any) -> str:
    if value is None:
        return "Modal's own"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {each}" for key, each in value.items()) + "}"
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _named(what: str, old: Mapping[str, str], new: Mapping[str, str], tell: Any) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield Change(Kind.ADDED, what, name, tell(name, new[name]))
        elif name not in new:
            yield Change(Kind.REMOVED, what, name)
        elif old[name] != new[name]:
            both = f"{tell(name, old[name])} → {tell(name, new[name])}"
            yield Change(Kind.CHANGED, what, name, both.strip(" →"))
