"""What becomes of a field of a definition: an effect, a refusal, or a line for the user.

Owns the kinds of rows. The rows are in field_table.py, and definition_check.py applies them to a definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Used:
    """The field has its effect."""

    module: str
    """A module that reads the field, relative to the emulator's folder."""
    whole: bool = False
    """Whether a message is stored or handed on as it is; otherwise the rows of its type hold for its fields."""


class Reader(Enum):
    """The part of Modal's SDK that reads a field."""

    CONTAINER = "the runtime in the container"
    CLIENT = "the client, which gets the field back"


@dataclass(frozen=True)
class HandedOn:
    """The control plane passes the field on unread, and Modal's own code acts on it."""

    reader: Reader


@dataclass(frozen=True)
class InParts:
    """No module reads the message as one: the rows of its type say everything about it."""


@dataclass(frozen=True)
class Refused:
    """A definition with the field is an error at deployment."""

    what: str
    """The missing feature, and what to do instead: completes "The local control plane does not have …"."""
    allowed: tuple[object, ...] = ()
    """Values that mean the same as none."""


@dataclass(frozen=True)
class WithoutEffect:
    """The field is accepted and has no effect; a line names it if it is set."""

    option: str
    """The option as a user of Modal knows it."""
    line: str
    """The line, after the name of the function. ``{}`` is the value."""
    usual: tuple[str, ...] = ()
    """Values that the SDK sends for every definition. They need no line."""
    has_effect_in_gvisor: bool = False
    """Whether the field has its effect, and no line, if containers run in gVisor."""


@dataclass(frozen=True)
class Internal:
    """The SDK sets the field by itself, and nothing that a user asks for depends on it here."""

    reason: str


Effect = Used | HandedOn | InParts | Refused | WithoutEffect | Internal


def used(module: str, names: str, *, whole: bool = False) -> dict[str, Effect]:
    """Return rows for the fields that this module reads."""
    return dict.fromkeys(names.split(), Used(module, whole))


def handed_on(reader: Reader, names: str) -> dict[str, Effect]:
    """Return rows for the fields that only Modal's own code reads."""
    return dict.fromkeys(names.split(), HandedOn(reader))


def internal(reason: str, names: str) -> dict[str, Effect]:
    """Return rows for the fields that the SDK sets by itself, all for one reason."""
    return dict.fromkeys(names.split(), Internal(reason))
