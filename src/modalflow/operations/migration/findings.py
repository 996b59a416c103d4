"""The findings of `modalflow migrate`: one for each line of a DAG file with something to change, decide or know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modalflow.operations.migration.static_values import Place


class Kind(StrEnum):
    """What a finding asks of its reader."""

    CHANGE = "change"
    """A line with its replacement."""
    DECIDE = "decide"
    """Something that a person has to decide or prepare."""
    DROP = "drop"
    """Something without a counterpart. It can go."""
    KEEP = "keep"
    """Something that stays, with what it depends on."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    place: Place
    kind: Kind
    what: str
    """The setting, as the file has it."""
    text: str
    """What becomes of it."""
