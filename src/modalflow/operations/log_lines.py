"""The lines of a task's log for human eyes, and their order. Pure.

Lines are structured, as JSON objects. Other lines come from other programs, and appear unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
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


def in_order_of_time(files: Iterable[tuple[str, Sequence[str]]], latest: MutableMapping[str, float]) -> list[str]:
    """Return the lines of several files in the order of their times, and those of one writer in their own order.

    ``files`` has the writer of each file and its lines; a line without a time stays after the line before it.
    ``latest`` keeps the newest time of each writer for the next call.
    """
    lines: list[tuple[float, str]] = []
    newest = -math.inf
    for writer, own in files:
        moments = [_moment(line) for line in own]
        # Lines before a writer's first time precede that time; a writer without any time follows the previous writer.
        first = next((moment for moment in moments if moment is not None), newest)
        newest = latest.get(writer, first)
        for line, moment in zip(own, moments, strict=True):
            newest = newest if moment is None else max(newest, moment)
            lines.append((newest, line))
        latest[writer] = newest
    lines.sort(key=itemgetter(0))
    return [line for _, line in lines]


def _moment(line: str) -> float | None:
    """Return the time of a line in seconds since the epoch; None without a valid one."""
    try:
        entry = from_json(line)
        if not isinstance(entry, dict) or not isinstance(entry.get("timestamp"), str):
            return None
        moment = datetime.fromisoformat(entry["timestamp"])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


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
