"""Log lines of a task: whatever their texts hold, they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from structlog.processors import JSONRenderer

from modalflow.worker.logs.log_encoding import escape_surrogates_in_logs, escaped, is_encodable
from tests.strange import JSON_VALUES, TEXTS


@pytest.fixture
def renderer() -> Iterator[JSONRenderer]:
    """A renderer of JSON as Airflow makes it, which refuses surrogates; the class is as before afterwards."""
    original = JSONRenderer.__call__
    escape_surrogates_in_logs()

    def dumps(event: dict[str, Any], default: object) -> bytes:
        return msgspec.json.encode({"event": event.pop("event"), **event}, enc_hook=str)

    yield JSONRenderer(serializer=dumps)
    JSONRenderer.__call__ = original  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "event",
    [
        {"event": "caf\udce9"},
        {"event": "it failed", "error_detail": [{"exc_value": "caf\udce9", "frames": [{"caf\udce9": 1}]}]},
        {"event": "it failed", "caf\udce9": ("a", {"caf\udce9"})},
        {"event": "it failed", "error": OSError("caf\udce9")},
    ],
)
def test_a_line_with_a_surrogate_is_written(renderer: JSONRenderer, event: dict[str, Any]) -> None:
    """Airflow's serializer raises for these, and with it the log call, which then reports nothing."""
    line = renderer(None, "error", event)
    assert b"caf\\\\udce9" in (line if isinstance(line, bytes) else line.encode())
    assert json.loads(line)


def test_other_lines_are_as_they_were(renderer: JSONRenderer) -> None:
    """NUL is nothing that JSON cannot hold."""
    assert json.loads(renderer(None, "info", {"event": "ä\x00", "n": [1, None]})) == {"event": "ä\x00", "n": [1, None]}


@settings(deadline=None)
@given(TEXTS, JSON_VALUES)
def test_any_event_can_be_encoded(name: str, value: object) -> None:
    """However deep it is nested."""
    msgspec.json.encode(escaped({name: value}), enc_hook=str)


@settings(deadline=None)
@given(TEXTS)
def test_what_can_be_encoded_is_known(text: str) -> None:
    """Before any serializer finds out."""
    assert is_encodable(text) == (text.encode("utf-8", "ignore").decode() == text)
