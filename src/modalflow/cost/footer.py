"""Resources of a call in one line of its log. No I/O."""

from __future__ import annotations

from modalflow.cost.figures import figure, memory, seconds
from modalflow.cost.rates import Rates, UnknownRateError, gpu_of, money
from modalflow.cost.usage import Record, Reserved

#: Shortest time to report, in seconds.
_LEAST = 0.005


def footer(record: Record, rates: Rates) -> str:
    """``Occupied 1 core, 2 GiB, T4 for 12.4 s (queued …, starting …, running …); used …; about $0.0021 with …``."""
    parts = [f"Occupied {_asked(record.reserved)} for {seconds(record.occupied)} ({_times(record)})"]
    if used := _used(record):
        parts.append(f"used {used}")
    try:
        parts.append(f"about {money(rates.dollars(record))} with {rates.source} (an estimate)")
    except UnknownRateError as error:
        parts.append(f"no estimate of the cost: no known rate for {error}")
    return "; ".join(parts)


def _asked(reserved: Reserved | None) -> str:
    if reserved is None:
        return "a container"
    parts = [f"{reserved.cpu:g} core{'' if reserved.cpu == 1 else 's'}", memory(reserved.memory_mib)]
    if reserved.gpu:
        model, count = gpu_of(reserved.gpu)
        parts.append(model if count == 1 else f"{count} {model}")
    return ", ".join(parts)


def _times(record: Record) -> str:
    parts = {
        "idle before": record.idle,
        "queued": record.queued,
        "starting": record.starting,
        "running": record.running,
    }
    return ", ".join(
        f"{name} {seconds(value)}" for name, value in parts.items() if value >= _LEAST or name == "running"
    )


def _used(record: Record) -> str:
    parts = [f"{figure(record.cpu_seconds)} core-seconds"] if record.cpu_seconds else []
    if record.peak_mib:
        parts.append(f"at most {memory(record.memory_mib)}")
    return ", ".join(parts)
