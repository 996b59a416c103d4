"""The size of a called Function, for the estimate of its cost."""

from __future__ import annotations

from modalflow.function_calls.function_reference import FunctionReference


class OldFunction:
    """A Function of SDK 1.5 that was looked up by name."""

    @property
    def info(self) -> object:
        raise AssertionError


def test_a_function_without_a_size_fails_no_task() -> None:
    """Before SDK 1.6, there is no estimate, and the call goes on."""
    reference = FunctionReference("app", "function")
    assert reference._size(OldFunction()) is None
