"""The check of a definition against the table: refuse what is not emulated, name what has no effect.

Owns the walk through a message and the messages inside it. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.definitions.effects import Effect, InParts, Refused, Used, WithoutEffect
from modalflow.emulator.definitions.field_table import FIELDS, SAME_AS
from modalflow.emulator.rpc.wire import message

_PREFIX = f"{api_pb2.DESCRIPTOR.package}."


@dataclass(frozen=True)
class SetField:
    """A field that a definition sets. ``effect`` is None for a field without a row."""

    field: FieldDescriptor
    value: Any
    effect: Effect | None


def rows(name: str) -> dict[str, Effect]:
    """Return the rows for the fields of a message of that name, by field."""
    return {**FIELDS.get(SAME_AS.get(name, ""), {}), **FIELDS.get(name, {})}


def refuse_unsupported(definition: Message) -> None:
    """Raise UNIMPLEMENTED for a definition that asks for a feature that the local control plane lacks."""
    for found in _set_fields(definition):
        if isinstance(found.effect, Refused) and found.value and found.value not in found.effect.allowed:
            raise GRPCError(Status.UNIMPLEMENTED, f"The local control plane does not have {found.effect.what}")


def lines_without_effect(definition: Message, *, in_gvisor: bool = False) -> list[str]:
    """Return a line for each option of the definition that has no effect here, without the function's name.

    ``in_gvisor``: containers run in gVisor, which gives some options their effect.
    """
    return list(dict.fromkeys(_lines(definition, in_gvisor=in_gvisor)))


def warnings_of(name: str, definition: Message, *, in_gvisor: bool = False) -> list[api_pb2.Warning]:
    """Return the lines as warnings, which the SDK shows at deployment below the function of that name."""
    return [
        message(
            api_pb2.Warning,
            type=api_pb2.Warning.WARNING_TYPE_FUNCTION_CONFIGURATION,
            message=f"{name} {line}",
        )
        for line in lines_without_effect(definition, in_gvisor=in_gvisor)
    ]


def _lines(definition: Message, *, in_gvisor: bool) -> Iterator[str]:
    for found in _set_fields(definition):
        if found.effect is None:
            yield f"sets {found.field.name}, which is newer than this modalflow: it may have no effect"
        elif isinstance(found.effect, WithoutEffect) and not (in_gvisor and found.effect.has_effect_in_gvisor):
            usual = found.effect.usual
            yield from (found.effect.line.format(each) for each in _shown(found) if each not in usual)
    if _has_unknown_fields(definition):
        yield (
            f"has options of a newer `modal` than the {version('modal')} of this control plane: they have no effect; "
            "update `modal` where the control plane runs"
        )


def _set_fields(definition: Message) -> Iterator[SetField]:
    known = rows(definition.DESCRIPTOR.full_name.removeprefix(_PREFIX))
    for field, value in definition.ListFields():
        effect = known.get(field.name)
        if isinstance(value, Message) and not value.ByteSize():
            continue
        yield SetField(field, value, effect)
        if isinstance(effect, InParts) or (isinstance(effect, Used) and not effect.whole):
            for part in _messages(value):
                yield from _set_fields(part)


def _messages(value: Any) -> Iterable[Message]:
    """Return the messages in the value of a field: itself, or those of a repeated field or map."""
    if isinstance(value, Message):
        return [value]
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return []
    parts = value.values() if hasattr(value, "values") else value
    return [part for part in parts if isinstance(part, Message)]


def _shown(found: SetField) -> list[str]:
    """Return the value for a line; of a map, each entry for a line of its own."""
    value = found.value
    if not value:
        return []
    if found.field.enum_type is not None:
        known = found.field.enum_type.values_by_number.get(value)
        return [str(value) if known is None else known.name.lower()]
    if hasattr(value, "items"):
        return [f"{name}={each}" for name, each in sorted(value.items())]
    # Repeated fields of a message have a length, but are no Iterable to isinstance.
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return [str(value)]
    return [", ".join(str(each) for each in value)]


def _has_unknown_fields(definition: Message) -> bool:
    """Return whether a client sent fields that the schema of the installed SDK lacks."""
    known = type(definition)()
    known.CopyFrom(definition)
    known.DiscardUnknownFields()
    return known.ByteSize() != definition.ByteSize()
