"""Outcomes of function calls in words, the check of results, and the estimate of costs. What Modal's SDK raises is in
tests/integration/test_modal_functions.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from modal import exception

from modalflow.errors import FunctionCallError
from modalflow.function_calls.cost_estimate import estimate, size_of
from modalflow.function_calls.outcome import PENDING, outcome_of
from modalflow.function_calls.plain_result import MAX_RESULT_BYTES, plain

PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


def test_pending_call_has_no_failure() -> None:
    """The builtin TimeoutError means that a call goes on."""
    assert outcome_of(TimeoutError()) is PENDING


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exception.RemoteError(""), "It was cancelled by Airflow"),
        (
            exception.RemoteError("container was killed: out of memory."),
            "on Modal: container was killed: out of memory.",
        ),
        (exception.InternalFailure("lost"), r"Modal failed to run it (lost). Run it again"),
        (
            exception.ExecutionError("x Here is the remote traceback:\nTraceback:\n  a\nKeyError: 1\n"),
            "raised KeyError: 1.",
        ),
    ],
)
def test_failure_has_a_reason(error: BaseException, words: str) -> None:
    """Each end without a result has a reason in words."""
    assert words in outcome_of(error).failure


@given(PLAIN)
def test_plain_data_stays_the_same(value: Any) -> None:
    """JSON types arrive as they are."""
    assert plain(value, MAX_RESULT_BYTES) == value


@pytest.mark.parametrize("value", [{1, 2}, b"", object(), 1j, {"a": {2: 3}}, [float("inf")]])
def test_other_data_is_refused(value: Any) -> None:
    """Other types are refused with advice."""
    with pytest.raises(FunctionCallError, match="Return plain data from the Function"):
        plain(value, MAX_RESULT_BYTES)


def test_depth_is_limited() -> None:
    """A result that is nested too deeply is refused, and does no harm."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(FunctionCallError, match="nested too deeply"):
        plain(value, MAX_RESULT_BYTES)


def test_cost_is_estimated_where_it_is_known() -> None:
    """The line has the reserved resources and the time; without them, or with a choice of GPUs, there is none."""
    info = SimpleNamespace(cpu=2.0, memory_mib=4096, gpus=[("H100", 1)], regions=None, nonpreemptible=False)
    line = estimate(size_of(info), 3_600)
    assert line.startswith("Estimated cost: $4.08, for the reserved 2 cores, 4 GiB, H100:1 during the 1 h")
    assert estimate(size_of(SimpleNamespace(**{**vars(info), "gpus": [("H100", 1), ("A100", 1)]})), 60) == ""
    assert estimate(size_of(object()), 60) == ""
