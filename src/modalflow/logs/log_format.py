"""The format of a line in a task log: one JSON object a line, as Airflow reads it.

Owns the order and the form of the fields, for every writing process. Does no I/O. Cheap to import: a container imports
it before its first task. ``names`` has the places of log files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import Any

from modalflow.support.text import STORED, clean, one_line


def timestamp(moment: datetime) -> str:
    """Return a moment as lines have it: UTC, with microseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def log_line(level: str, event: str, logger: str, moment: datetime | None = None, **context: Any) -> bytes:
    """Return a structured line of a moment, now by default; its texts are safe to show."""
    known = {name: one_line(value) if isinstance(value, str) else value for name, value in context.items()}
    return encode_line(timestamp(moment or datetime.now(UTC)), level, clean(event, STORED), logger, known)


def encode_line(stamp: str, level: str, event: str, logger: str, context: Mapping[str, Any] | None = None) -> bytes:
    """Return a structured line with unchanged texts: a program's output appears as printed.

    ``stamp``, ``level`` and ``logger`` must need no escapes. Written out, because a program may print millions of
    lines, and encoding an object takes twice as long.
    """
    more = ""
    if context:
        more = "," + json.dumps(context, separators=(",", ":"), ensure_ascii=False)[1:-1]
    line = f'{{"timestamp":"{stamp}","level":"{level}","event":{encode_basestring(event)},"logger":"{logger}"{more}}}\n'
    return line.encode()
