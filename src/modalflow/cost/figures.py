"""Amounts and times as users read them, in logs and on a terminal. No I/O."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def figure(value: float) -> str:
    """``0.42``, ``12.4``, ``1,203``."""
    return f"{value:,.{2 if value < 1 else 1 if value < 100 else 0}f}"


def seconds(value: float) -> str:
    return f"{figure(value)} s"


def memory(mib: float) -> str:
    """``312 MiB``, ``2 GiB``."""
    return f"{mib / 1024:.3g} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def duration(seconds: float) -> str:
    """Return a time span with its two largest units: ``3 h 12 min``, ``42 s``."""
    seconds = max(0.0, seconds)
    parts = []
    for name, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count:.0f} {name}")
    if len(parts) < 2:
        parts.append(f"{seconds:.0f} s")
    return " ".join(parts[:2])
