"""A deferral of a task without a triggerer: its trigger runs in this process, and its event resumes the task."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS


@dataclass(frozen=True)
class Fired:
    """The first event of a trigger."""

    next_call: Mapping[str, Any] = field(default_factory=dict)
    """The parts of the answer to the start of the resumed task."""
    final_state: str = ""
    """The state of the task if the event ends it; empty if the task resumes."""
    xcoms: Mapping[str, Any] = field(default_factory=dict)
    """The XComs of an event that ends the task."""


def fire(deferred: Mapping[str, Any]) -> Fired:
    """Run the trigger of a deferral to its first event.

    ``deferred`` is the body with which the task deferred itself. Raises the trigger's errors.
    """
    from airflow.models.trigger import Trigger

    kwargs = deferred.get("trigger_kwargs") or {}
    row: Any = Trigger(classpath=str(deferred["classpath"]), kwargs={})
    row.encrypted_kwargs = kwargs if isinstance(kwargs, str) else json.dumps(kwargs)
    module, _, name = row.classpath.rpartition(".")
    trigger = getattr(import_module(module), name)(**row.kwargs)
    event = asyncio.run(_first_event(trigger))
    if (state := getattr(event, "task_instance_state", None)) is not None:
        return Fired(final_state=str(getattr(state, "value", state)), xcoms=event.xcoms or {})
    resumed = _decoded(deferred.get("next_kwargs") or {})
    if event is not None:
        resumed["event"] = event.payload
    return Fired({"next_method": deferred.get("next_method"), "next_kwargs": _encoded(resumed)})


async def _first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return event
    return None


def _decoded(kwargs: Any) -> dict[str, Any]:
    """Return the arguments in a message, in any form that this or an earlier version writes."""
    if AIRFLOW_V_3_2_PLUS:
        serde: Any = import_module("airflow.sdk.serde")
        try:
            return dict(serde.deserialize(kwargs))
        except (ImportError, KeyError, AttributeError, TypeError):
            pass
    return dict(_base_serialization().deserialize(kwargs))


def _encoded(kwargs: Mapping[str, Any]) -> Any:
    if AIRFLOW_V_3_2_PLUS:
        serde: Any = import_module("airflow.sdk.serde")
        return serde.serialize(dict(kwargs))
    return _base_serialization().serialize(dict(kwargs))


def _base_serialization() -> Any:
    from airflow.serialization.serialized_objects import BaseSerialization

    return BaseSerialization
