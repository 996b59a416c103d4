"""What is read of what a process may have written."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from modalflow.protocol.messages import State
from modalflow.worker.zygote.protocol import Outcome, encode, parse_outcome_line


def test_an_outcome_comes_back_as_it_was_told() -> None:
    """All of an outcome passes through the pipe."""
    outcome = Outcome(State.FAILED, 3, "failed", "why", "api-unreachable")
    assert parse_outcome_line(encode(asdict(outcome))) == outcome


@pytest.mark.parametrize("data", [b"", b"{", b"[1]\n", b'"success"\n', b"{}\n", b'{"state":"?"}\n', b"\xff\n", b"3\n"])
def test_what_is_no_outcome_is_none(data: bytes) -> None:
    """Whatever a task gets written there, the zygote goes on."""
    assert parse_outcome_line(data) is None
