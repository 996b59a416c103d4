"""An exception is described in words, whatever it says of itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modalflow
from modalflow.support.described import describe, words_of


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Secretive:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no rows"), "ValueError: no rows"),
        (TimeoutError(), "TimeoutError: no answer in time"),
        (TimeoutError("  \n"), "TimeoutError: no answer in time"),
        (asyncio.CancelledError(), "CancelledError: it was cancelled"),
        (ConnectionResetError(), "ConnectionResetError: the other side ended the connection"),
        (BrokenPipeError(), "BrokenPipeError: the other side no longer reads"),
        (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError: [Errno 32] Broken pipe"),
        (OSError(28), "OSError: No space left on device (28)"),
        (KeyError("x"), "KeyError: there is no key 'x'"),
        (KeyError(""), "KeyError: there is no key ''"),
        (KeyError(Secretive()), "KeyError: its text cannot be read, because this raises ValueError"),
        (RuntimeError(), "RuntimeError: it gives no reason"),
        (RuntimeError(None), "RuntimeError: it gives no reason"),
        (Mute(), "Mute: its text cannot be read, because this raises RuntimeError"),
        (asyncio.IncompleteReadError(b"", 4), "IncompleteReadError: 0 bytes read on a total of 4 expected bytes"),
        (
            ExceptionGroup("several", [TimeoutError(), ValueError("b"), KeyError("c"), OSError("d"), OSError("e")]),
            "ExceptionGroup: several: TimeoutError: no answer in time; ValueError: b; KeyError: there is no key 'c'; "
            "and 2 more",
        ),
    ],
)
def test_every_exception_has_words(error: BaseException, text: str) -> None:
    """The class, then what it says; what is empty says what its class means."""
    assert describe(error) == text


def test_words_are_without_the_class() -> None:
    """For a sentence that needs no class; what has no words is described."""
    assert words_of(ValueError("no rows")) == "no rows"
    assert words_of(TimeoutError()) == describe(TimeoutError())


def raised(error: BaseException, cause: BaseException | None, handled: BaseException | None = None) -> BaseException:
    try:
        try:
            if handled is not None:
                raise handled
        finally:
            if cause is not None:
                raise error from cause
            raise error
    except BaseException as caught:  # noqa: BLE001  It is what the test wants.
        return caught


def test_a_cause_that_says_more_is_told() -> None:
    """A reason behind the exception is not lost; one that it repeats is not told twice."""
    full = OSError(28, "No space left on device")
    assert describe(raised(TimeoutError(), full)) == f"TimeoutError: caused by OSError: {full}"
    assert describe(raised(ValueError("failed"), full)) == f"ValueError: failed (caused by OSError: {full})"
    assert describe(raised(ValueError(f"failed: {full}"), full)) == f"ValueError: failed: {full}"
    assert describe(raised(TimeoutError(), None, full)) == f"TimeoutError: caused by OSError: {full}"
    assert describe(raised(ValueError("failed"), None, full)) == "ValueError: failed"


async def test_a_timeout_of_asyncio_is_no_answer() -> None:
    """Its own cancellation is how it works, and no cause."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    assert describe(caught.value).startswith("TimeoutError: no answer in time")


def test_a_circle_of_causes_ends() -> None:
    """A chain of causes can be a circle."""
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert describe(first).startswith("ValueError: caused by ValueError")


@given(st.text(max_size=20), st.sampled_from([ValueError, KeyError, OSError, TimeoutError, RuntimeError]))
def test_no_reason_is_empty(text: str, kind: type[Exception]) -> None:
    """No description ends where the reason should be."""
    described = describe(kind(text))
    assert described.startswith(f"{kind.__name__}: ")
    assert described.removeprefix(f"{kind.__name__}:").strip()


def test_nothing_else_puts_an_exception_into_words() -> None:
    """A second place would not know of exceptions without a text."""
    source = Path(modalflow.__file__).parent
    by_hand = re.compile(r"__name__\}?:? *\{|: \{(error|exc|e)!r\}|type\(error\)\.__name__, error\b")
    # The local control plane stands alone; what it says of its own errors is in gRPC's messages.
    files = [file for file in source.rglob("*.py") if "emulator" not in file.relative_to(source).parts]
    found = [f"{file}: {line}" for file in files for line in file.read_text().splitlines() if by_hand.search(line)]
    assert len(files) > 100 and not found, found
