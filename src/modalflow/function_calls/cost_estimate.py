"""An estimate of a call's cost, from the resources that its Function reserves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalflow.cost import figures
from modalflow.cost.rates import DATED, UnknownRateError, money
from modalflow.cost.usage import Record, Reserved


def size_of(info: Any) -> dict[str, Any] | None:
    """Return the resources in a ``modal.types.FunctionInfo`` as plain data; None if they are not known."""
    try:
        gpus = [f"{model}:{count}" for model, count in info.gpus]
        return {
            "cpu": info.cpu,
            "memory": info.memory_mib,
            "gpu": gpus[0] if len(gpus) == 1 else gpus,
            "region": list(info.regions or ()),
            "nonpreemptible": bool(info.nonpreemptible),
        }
    except (AttributeError, TypeError, ValueError):
        # An SDK with another form of it, or none.
        return None


def estimate(size: Mapping[str, Any] | None, seconds: float) -> str:
    """Return a line for the task's log; empty if the resources or their rates are not known.

    Modal reports neither the use nor the times of another app's call. So the time is that between spawn and end.
    """
    if not size:
        return ""
    reserved = Reserved.read(size)
    record = Record("", "", 0.0, reserved=reserved, occupied=seconds)
    try:
        dollars = DATED.dollars(record)
    except UnknownRateError:
        return ""
    gpu = f", {reserved.gpu}" if reserved.gpu else ""
    what = f"{reserved.cpu:g} cores, {figures.memory(reserved.memory_mib)}{gpu}"
    return (
        f"Estimated cost: {money(dollars)}, for the reserved {what} during the {figures.duration(seconds)} between "
        f"spawn and end, at {DATED.source}. Waiting is included, use above the reservation is not."
    )
