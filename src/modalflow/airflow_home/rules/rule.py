"""One row of the table of Airflow's options: which of the host's settings hold in a container, and why not the others.

Owns the form of a row. The rows are in ``airflow_rules`` and ``provider_rules``, the lookup is in ``rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Place(StrEnum):
    """Where a setting of the Airflow host holds."""

    TRAVELS = "travels"
    """Tasks, callbacks or connection tests can read it, so that it holds in containers as well."""
    SEALED = "sealed"
    """The same, but the value is a secret. It travels encrypted."""
    HOST = "host"
    """It is of use on the Airflow host alone."""
    NEVER = "never"
    """It is a secret, and none of a task's. It never leaves the host."""
    WORKER = "worker"
    """The worker has its own value, or the value comes with each workload."""

    @property
    def leaves_host(self) -> bool:
        """Whether such a setting is part of the Airflow home of containers."""
        return self in (Place.TRAVELS, Place.SEALED)


@dataclass(frozen=True)
class Rule:
    """A row: the place of an option, or of a whole section, and the reason for it."""

    section: str
    option: str
    """The name, in lower case; ``*`` for all options of the section without a row of their own."""
    place: Place
    reason: str
    """One or two sentences for an operator."""
    since: str = ""
    """The first minor version of Airflow with this option, e.g. ``3.2``; empty if 3.0 has it, and for providers."""
    until: str = ""
    """The last minor version of Airflow with this option; empty if the newest has it."""

    @property
    def name(self) -> str:
        """The option as Airflow's documentation writes it."""
        return f"[{self.section}] {self.option}"


@dataclass(frozen=True)
class Group:
    """Options of one section with the same place and reason."""

    place: Place
    reason: str
    options: str
    """Names between spaces. ``name:3.1-`` exists since Airflow 3.1, ``name:-3.1`` until 3.1, ``name:3.1-3.2`` in both
    of these alone."""


def section(name: str, *groups: Group) -> Iterable[Rule]:
    """Return the rows of a section. Raises ValueError if an option is there twice."""
    rows = [rule for group in groups for rule in _rows(name, group)]
    names = [rule.option for rule in rows]
    if twice := {option for option in names if names.count(option) > 1}:
        raise ValueError(f"[{name}] has two rows for {', '.join(sorted(twice))}")
    return rows


def _rows(section_name: str, group: Group) -> Iterator[Rule]:
    for written in group.options.split():
        option, _, versions = written.partition(":")
        since, _, until = versions.partition("-")
        yield Rule(section_name, option, group.place, group.reason, since, until)
