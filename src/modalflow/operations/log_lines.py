"""A line of a task's log for human eyes. Pure.

Lines are structured, as JSON objects. Other lines come from other programs, and appear unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from modalflow.support.text import for_terminal, from_json

#: Fields with the same value in every line, or with their own place.
_NOT_SHOWN = frozenset(
    {"timestamp", "level", "event", "logger", "filename", "lineno", "loc", "chan", "error_detail", "exception"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "ti", "correlation_id", "worker_version"}
)


def readable(line: str) -> tuple[str, str]:
    """Return (level, text) of a line: ``2026-01-02T03:04:05.678Z INFO  message  key=value``, a traceback below it."""
    try:
        entry = from_json(line)
    except ValueError:
        return "", for_terminal(line)
    if not isinstance(entry, dict) or "event" not in entry:
        return "", for_terminal(line)
    level = str(entry.get("level") or "info").lower()
    context = "  ".join(f"{name}={_value(entry[name])}" for name in entry if name not in _NOT_SHOWN)
    text = f"{_time(entry.get('timestamp'))} {level.upper():7} {entry['event']}{'  ' + context if context else ''}"
    return level, for_terminal("\n".join([text, *_errors(entry)]))


def _time(timestamp: object) -> str:
    """Milliseconds are enough, and the zone is always UTC."""
    text = str(timestamp or "").replace("+00:00", "Z")
    whole, dot, fraction = text.rstrip("Z").partition(".")
    return f"{whole}{dot}{fraction[:3]}{'Z' if text.endswith('Z') else ''}"


def _value(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value)


def _errors(entry: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(entry.get("exception"), str):
        yield from (f"    {row}" for row in entry["exception"].splitlines())
    errors = entry.get("error_detail")
    for error in errors if isinstance(errors, list) else []:
        if not isinstance(error, dict):
            continue
        frames = error.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            if isinstance(frame, dict):
                yield f"    {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
        yield f"  {error.get('exc_type')}: {error.get('exc_value')}"
